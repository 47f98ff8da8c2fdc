// SPDX-License-Identifier: MIT
// Messages to bytes and back. No sockets, no state: what comes in is hostile
// until it has passed here.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "wire/messages.hh"

namespace rmem::wire {

using HeaderBytes = std::array<std::byte, kHeaderBytes>;

// Where some of the fields lie, for whoever fills them into a header that has been
// written, or looks for them in one; its checksum covers what is in front of it.
namespace header_at {
inline constexpr std::uint16_t kRequest = 8, kOffset = 24, kLength = 32, kPayload = 40,
                               kChecksum = 44, kEpoch = 48, kHeaderChecksum = 60;
}

// Writes the header with its checksum.
void encode(const Header& header, std::span<std::byte, kHeaderBytes> into);

// Why bytes are not a frame of this protocol.
enum class Flaw {
  kNone,
  kMagic,           // another protocol
  kVersion,         // ours, another version
  kHeaderChecksum,  // damaged
  kFlags,           // a bit that nobody knows, or a checksum without its flag
  kReserved,        // an error in a request
};

// Version is compared with `version`; HELLO and REFUSE are always
// kHelloVersion. The fields' values are not judged otherwise.
Flaw decode(std::span<const std::byte, kHeaderBytes> from, std::uint8_t version, Header& header);

// Of a frame whose first bytes are these: kMagic as soon as that is certain.
// Saves waiting for the rest of a header that will never come.
Flaw glance(std::span<const std::byte> first_bytes);

// For people: "a damaged frame header"
std::string_view flaw_text(Flaw flaw);
// The number for REFUSE.
std::uint32_t flaw_error(Flaw flaw);

std::vector<std::byte> encode(const Hello& hello);
// Nothing if it is too short, too long, or has an impossible value.
std::optional<Hello> decode_hello(std::span<const std::byte> payload);

std::array<std::byte, 32> encode(const Opened& opened);
// Bytes behind the known ones are for later versions.
std::optional<Opened> decode_opened(std::span<const std::byte> payload);

// Text from a peer made fit for a log or a terminal: printable ASCII only, and
// at most kMaxErrorText of it.
std::string clean_text(std::span<const std::byte> text);

}  // namespace rmem::wire
