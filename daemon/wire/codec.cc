// SPDX-License-Identifier: MIT
#include "wire/codec.hh"

#include <algorithm>
#include <cstring>

#include "base/bytes.hh"
#include "base/crc32c.hh"

namespace rmem::wire {
namespace {

// Offsets of docs/protocol.md, section 1.
namespace at {
using namespace header_at;
constexpr std::size_t kMagic = 0, kVersion = 4, kType = 5, kFlags = 6, kHandle = 16,
                      kGeneration = 20, kError = 56;
}  // namespace at

constexpr std::size_t kHelloBytes = 48;  // and a name
constexpr std::size_t kHelloNameMax = 128;
constexpr std::size_t kOpenedBytes = 32;

// The payload is that of a READ reply or a WRITE, by one codec, and shorter for it.
bool compressed_well(const Header& header) {
  const std::uint16_t by = header.flags & flag::kCompressed;
  const bool carries = header.type == Type::kRead ? header.reply() && header.error == 0
                                                  : header.type == Type::kWrite && !header.reply();
  return by != flag::kCompressed && carries && !(header.flags & flag::kZeros) &&
         header.payload > 0 && header.payload < header.length && header.length <= kMaxPayload;
}

}  // namespace

std::string_view type_name(Type type) {
  switch (type) {
    case Type::kHello:
      return "HELLO";
    case Type::kOpen:
      return "OPEN";
    case Type::kClaim:
      return "CLAIM";
    case Type::kRelease:
      return "RELEASE";
    case Type::kRead:
      return "READ";
    case Type::kWrite:
      return "WRITE";
    case Type::kZero:
      return "ZERO";
    case Type::kFlush:
      return "FLUSH";
    case Type::kPing:
      return "PING";
    case Type::kClose:
      return "CLOSE";
    case Type::kRefuse:
      return "REFUSE";
    case Type::kHash:
      return "HASH";
    case Type::kStream:
      return "STREAM";
    case Type::kTrack:
      return "TRACK";
    case Type::kDirty:
      return "DIRTY";
    case Type::kHandover:
      return "HANDOVER";
    case Type::kLease:
      return "LEASE";
    case Type::kInvalidate:
      return "INVALIDATE";
  }
  return "";
}

void encode(const Header& header, std::span<std::byte, kHeaderBytes> into) {
  std::byte* to = into.data();
  store_le(to + at::kMagic, kMagic);
  store_le(to + at::kVersion, header.version);
  store_le(to + at::kType, static_cast<std::uint8_t>(header.type));
  store_le(to + at::kFlags, header.flags);
  store_le(to + at::kRequest, header.request);
  store_le(to + at::kHandle, header.handle);
  store_le(to + at::kGeneration, header.generation);
  store_le(to + at::kOffset, header.offset);
  store_le(to + at::kLength, header.length);
  store_le(to + at::kPayload, header.payload);
  store_le(to + at::kChecksum, header.checksum);
  store_le(to + at::kEpoch, header.epoch);
  store_le(to + at::kError, header.error);
  store_le(to + at::kHeaderChecksum, crc32c(into.first(at::kHeaderChecksum)));
}

Flaw decode(std::span<const std::byte, kHeaderBytes> from, std::uint8_t version, Header& header) {
  const std::byte* in = from.data();
  if (load_le<std::uint32_t>(in + at::kMagic) != kMagic) return Flaw::kMagic;
  header.version = load_le<std::uint8_t>(in + at::kVersion);
  header.type = static_cast<Type>(load_le<std::uint8_t>(in + at::kType));
  const bool fixed = header.type == Type::kHello || header.type == Type::kRefuse;
  if (header.version != (fixed ? kHelloVersion : version)) return Flaw::kVersion;
  if (load_le<std::uint32_t>(in + at::kHeaderChecksum) != crc32c(from.first(at::kHeaderChecksum)))
    return Flaw::kHeaderChecksum;
  header.flags = load_le<std::uint16_t>(in + at::kFlags);
  header.request = load_le<std::uint64_t>(in + at::kRequest);
  header.handle = load_le<std::uint32_t>(in + at::kHandle);
  header.generation = load_le<std::uint32_t>(in + at::kGeneration);
  header.offset = load_le<std::uint64_t>(in + at::kOffset);
  header.length = load_le<std::uint64_t>(in + at::kLength);
  header.payload = load_le<std::uint32_t>(in + at::kPayload);
  header.checksum = load_le<std::uint32_t>(in + at::kChecksum);
  header.epoch = load_le<std::uint64_t>(in + at::kEpoch);
  header.error = load_le<std::uint32_t>(in + at::kError);
  if (header.flags & ~flag::kKnown) return Flaw::kFlags;
  const bool checksummed = header.flags & flag::kChecksum;
  if (checksummed ? header.payload == 0 : header.checksum != 0) return Flaw::kFlags;
  if (header.flags & flag::kCompressed && !compressed_well(header)) return Flaw::kFlags;
  if (!header.reply() && header.type != Type::kRefuse && (header.error != 0 || header.epoch != 0))
    return Flaw::kReserved;
  return Flaw::kNone;
}

Flaw glance(std::span<const std::byte> first_bytes) {
  std::byte magic[sizeof kMagic];
  store_le(magic, kMagic);
  const std::size_t length = std::min(first_bytes.size(), sizeof magic);
  if (length == 0) return Flaw::kNone;
  return std::memcmp(first_bytes.data(), magic, length) == 0 ? Flaw::kNone : Flaw::kMagic;
}

std::string_view flaw_text(Flaw flaw) {
  switch (flaw) {
    case Flaw::kNone:
      return "";
    case Flaw::kMagic:
      return "not a frame of the rmem protocol";
    case Flaw::kVersion:
      return "a frame of another version";
    case Flaw::kHeaderChecksum:
      return "a damaged frame header";
    case Flaw::kFlags:
      return "unknown or contradictory flags";
    case Flaw::kReserved:
      return "a value in a field that has to be 0";
  }
  return "";
}

std::uint32_t flaw_error(Flaw flaw) {
  switch (flaw) {
    case Flaw::kVersion:
      return error::kVersion;
    case Flaw::kHeaderChecksum:
      return error::kBadMessage;
    default:
      return error::kProtocol;
  }
}

std::vector<std::byte> encode(const Hello& hello) {
  const std::size_t name = std::min(hello.name.size(), kHelloNameMax);
  std::vector<std::byte> bytes(kHelloBytes + name);
  std::byte* to = bytes.data();
  store_le(to + 0, hello.version_min);
  store_le(to + 2, hello.version_max);
  store_le(to + 4, hello.version);
  store_le(to + 6, static_cast<std::uint8_t>(hello.role));
  store_le(to + 8, hello.features);
  store_le(to + 16, hello.max_payload);
  store_le(to + 20, hello.max_requests);
  store_le(to + 24, static_cast<std::uint32_t>(hello.silence.count()));
  std::memcpy(to + 32, hello.session.data(), hello.session.size());
  std::memcpy(to + kHelloBytes, hello.name.data(), name);
  return bytes;
}

std::optional<Hello> decode_hello(std::span<const std::byte> payload) {
  if (payload.size() < kHelloBytes || payload.size() > kMaxPayloadBeforeOpen) return std::nullopt;
  const std::byte* in = payload.data();
  Hello hello;
  hello.version_min = load_le<std::uint16_t>(in + 0);
  hello.version_max = load_le<std::uint16_t>(in + 2);
  hello.version = load_le<std::uint16_t>(in + 4);
  hello.role = static_cast<Role>(load_le<std::uint8_t>(in + 6));
  hello.features = load_le<std::uint64_t>(in + 8);
  hello.max_payload = load_le<std::uint32_t>(in + 16);
  hello.max_requests = load_le<std::uint32_t>(in + 20);
  hello.silence = std::chrono::milliseconds(load_le<std::uint32_t>(in + 24));
  std::memcpy(hello.session.data(), in + 32, hello.session.size());
  hello.name = clean_text(payload.subspan(kHelloBytes));
  // Roles that a later version adds are treated as kEverything by whoever does
  // not know them, so they are no reason to refuse.
  const bool sane = hello.version_min >= 1 && hello.version_min <= hello.version_max &&
                    hello.max_payload >= kMaxPayloadBeforeOpen;
  return sane ? std::optional(std::move(hello)) : std::nullopt;
}

std::array<std::byte, 32> encode(const Opened& opened) {
  std::array<std::byte, kOpenedBytes> bytes{};
  store_le(bytes.data(), opened.size);
  std::memcpy(bytes.data() + 8, opened.identity.data(), opened.identity.size());
  return bytes;
}

std::optional<Opened> decode_opened(std::span<const std::byte> payload) {
  if (payload.size() < kOpenedBytes) return std::nullopt;
  Opened opened;
  opened.size = load_le<std::uint64_t>(payload.data());
  std::memcpy(opened.identity.data(), payload.data() + 8, opened.identity.size());
  if (opened.size == 0 || opened.size > INT64_MAX) return std::nullopt;
  return opened;
}

std::string clean_text(std::span<const std::byte> text) {
  std::string clean;
  for (const std::byte byte : text.first(std::min<std::size_t>(text.size(), kMaxErrorText))) {
    const char c = static_cast<char>(byte);
    if (c == '\r' || c == '\n') continue;
    clean += c >= 0x20 && c < 0x7f ? c : '?';
  }
  return clean;
}

}  // namespace rmem::wire
