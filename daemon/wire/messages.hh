// SPDX-License-Identifier: MIT
// The vocabulary of docs/protocol.md: numbers, limits and the shape of each
// message. No bytes here; codec.hh turns these into bytes and back.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/uuid.hh"

namespace rmem::wire {

inline constexpr std::uint32_t kMagic = 0x6d656d72;  // "rmem"
inline constexpr std::uint16_t kVersionMin = 1;
inline constexpr std::uint16_t kVersionMax = 1;
// Of HELLO and REFUSE, whatever else a peer speaks.
inline constexpr std::uint8_t kHelloVersion = 1;

inline constexpr std::size_t kHeaderBytes = 64;
inline constexpr std::uint32_t kMaxPayload = 4u << 20;
inline constexpr std::uint32_t kMaxPayloadBeforeOpen = 4096;
inline constexpr std::uint32_t kMaxErrorText = 512;
inline constexpr std::uint32_t kMaxName = 255;
inline constexpr std::uint32_t kMaxRequests = 256;
inline constexpr std::uint32_t kMaxHandles = 16;
inline constexpr std::uint32_t kSlice = 256u << 10;  // of what a client reads and writes
inline constexpr std::chrono::seconds kHandshakeTimeout{10};
inline constexpr std::chrono::seconds kSilence{30};

enum class Type : std::uint8_t {
  kHello = 1,
  kOpen = 2,
  kClaim = 3,
  kRelease = 4,
  kRead = 5,
  kWrite = 6,
  kZero = 7,
  kFlush = 8,
  kPing = 9,
  kClose = 10,
  kRefuse = 11,
  // Numbers kept free for what comes.
  kHash = 16,
  kStream = 17,
  kTrack = 18,
  kDirty = 19,
  kHandover = 20,
  kLease = 21,
  kInvalidate = 22,
};

// "READ"; empty for a number that means nothing.
std::string_view type_name(Type type);

namespace flag {
inline constexpr std::uint16_t kReply = 1 << 0;
inline constexpr std::uint16_t kChecksum = 1 << 1;
inline constexpr std::uint16_t kReadOnly = 1 << 2;
inline constexpr std::uint16_t kTakeOver = 1 << 3;
inline constexpr std::uint16_t kZeros = 1 << 4;
inline constexpr std::uint16_t kBehind = 1 << 5;
inline constexpr std::uint16_t kLz4 = 1 << 6;
inline constexpr std::uint16_t kZstd = 1 << 7;
inline constexpr std::uint16_t kCompressed = kLz4 | kZstd;
inline constexpr std::uint16_t kKnown =
    kReply | kChecksum | kReadOnly | kTakeOver | kZeros | kBehind | kCompressed;
}  // namespace flag

namespace feature {
inline constexpr std::uint64_t kChecksum = 1 << 0;
inline constexpr std::uint64_t kLanes = 1 << 1;
inline constexpr std::uint64_t kZeros = 1 << 2;
inline constexpr std::uint64_t kFlushBehind = 1 << 3;
inline constexpr std::uint64_t kLz4 = 1 << 4;
inline constexpr std::uint64_t kZstd = 1 << 5;
inline constexpr std::uint64_t kCompression = kLz4 | kZstd;
inline constexpr std::uint64_t kSides = 1 << 6;
inline constexpr std::uint64_t kBacksOff = 1 << 7;
}  // namespace feature

// The numbers of section 5; those of Linux on x86-64, spelled out because they
// are a contract with other machines.
namespace error {
inline constexpr std::uint32_t kPerm = 1;
inline constexpr std::uint32_t kNoEntry = 2;
inline constexpr std::uint32_t kIo = 5;
inline constexpr std::uint32_t kAccess = 13;
inline constexpr std::uint32_t kBusy = 16;
inline constexpr std::uint32_t kInvalid = 22;
inline constexpr std::uint32_t kTooManyHandles = 24;
inline constexpr std::uint32_t kNoSpace = 28;
inline constexpr std::uint32_t kReadOnly = 30;
inline constexpr std::uint32_t kProtocol = 71;
inline constexpr std::uint32_t kBadMessage = 74;
inline constexpr std::uint32_t kMessageSize = 90;
inline constexpr std::uint32_t kVersion = 93;
inline constexpr std::uint32_t kNotOffered = 95;
inline constexpr std::uint32_t kTimedOut = 110;
inline constexpr std::uint32_t kStale = 116;
}  // namespace error

struct Header {
  std::uint8_t version = kVersionMax;
  Type type{};
  std::uint16_t flags = 0;
  std::uint64_t request = 0;
  std::uint32_t handle = 0;
  std::uint32_t generation = 0;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  std::uint32_t payload = 0;
  std::uint32_t checksum = 0;
  std::uint64_t epoch = 0;
  std::uint32_t error = 0;

  bool reply() const { return flags & flag::kReply; }
  bool operator==(const Header&) const = default;
};

enum class Role : std::uint8_t { kEverything = 0, kPages = 1, kBulk = 2, kSide = 3 };

// Whether it carries what nobody waits for: a bulk lane, or one beside it.
constexpr bool carries_bulk(Role role) { return role == Role::kBulk || role == Role::kSide; }

struct Hello {
  std::uint16_t version_min = kVersionMin;
  std::uint16_t version_max = kVersionMax;
  std::uint16_t version = 0;  // S: chosen; C: 0
  Role role = Role::kEverything;
  std::uint64_t features = 0;
  std::uint32_t max_payload = kMaxPayload;
  std::uint32_t max_requests = 0;
  std::chrono::milliseconds silence{};  // C: keep-alive interval; S: what it tolerates
  Uuid session{};
  std::string name;

  bool operator==(const Hello&) const = default;
};

// What OPEN answers, beside handle and epoch.
struct Opened {
  std::uint64_t size = 0;
  Uuid identity{};

  bool operator==(const Opened&) const = default;
};

}  // namespace rmem::wire
