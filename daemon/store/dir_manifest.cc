// SPDX-License-Identifier: MIT
#include "store/dir_manifest.hh"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>

#include "base/bytes.hh"
#include "base/crc32c.hh"
#include "base/units.hh"

namespace rmem::store {
namespace {

constexpr std::string_view kMagic = "rmemdir\n";
constexpr std::uint32_t kManifestVersion = 1;
constexpr std::size_t kHeader = 48;

Status damaged(const std::string& how) { return Status(Code::kCorrupt, how); }

}  // namespace

std::uint64_t Bitmap::count() const {
  std::uint64_t count = 0;
  for (const std::uint64_t word : words_) count += static_cast<unsigned>(std::popcount(word));
  return count;
}

std::uint64_t Bitmap::next(std::uint64_t from) const {
  std::size_t at = from / 64;
  if (at >= words_.size()) return words_.size() * 64;
  std::uint64_t word = words_[at] >> (from % 64) << (from % 64);
  while (word == 0) {
    if (++at == words_.size()) return at * 64;
    word = words_[at];
  }
  return at * 64 + static_cast<unsigned>(std::countr_zero(word));
}

Result<DirManifest> DirManifest::make(std::uint64_t size, std::uint64_t chunk) {
  if (!std::has_single_bit(chunk) || chunk < kMinChunk || chunk > kMaxChunk)
    return Status(Code::kUsage, "the chunk size " + format_size(chunk) + " is not possible",
                  "take a power of two from 4KiB to 1GiB");
  if (size == 0) return Status(Code::kUsage, "the size is 0");
  if ((size - 1) / chunk >= kMaxChunks)
    return Status(Code::kUsage,
                  format_size(size) + " are too many chunks of " + format_size(chunk) + " each",
                  "take a larger ?chunk=; there can be " + std::to_string(kMaxChunks));
  DirManifest manifest;
  manifest.uuid = uuid_random();
  manifest.size = size;
  manifest.chunk = chunk;
  manifest.written = Bitmap(manifest.chunks());
  return manifest;
}

std::vector<std::byte> DirManifest::encode() const {
  const auto bits = std::as_bytes(written.words());
  std::vector<std::byte> bytes(kHeader + bits.size() + 4);
  std::memcpy(bytes.data(), kMagic.data(), kMagic.size());
  store_le<std::uint32_t>(&bytes[8], kManifestVersion);
  store_le<std::uint32_t>(&bytes[12], 0);
  std::memcpy(&bytes[16], uuid.data(), uuid.size());
  store_le<std::uint64_t>(&bytes[32], size);
  store_le<std::uint64_t>(&bytes[40], chunk);
  std::copy(bits.begin(), bits.end(), bytes.begin() + kHeader);
  const auto sum = crc32c(std::span(bytes).first(bytes.size() - 4));
  store_le<std::uint32_t>(&bytes[bytes.size() - 4], sum);
  return bytes;
}

Result<DirManifest> DirManifest::decode(std::span<const std::byte> bytes) {
  if (bytes.size() < kHeader + 4) return damaged("it is cut short");
  if (std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0)
    return damaged("it does not begin as one");
  const auto sum = load_le<std::uint32_t>(&bytes[bytes.size() - 4]);
  if (crc32c(bytes.first(bytes.size() - 4)) != sum) return damaged("its checksum is wrong");
  // From here on it is what somebody wrote on purpose.
  if (const auto version = load_le<std::uint32_t>(&bytes[8]); version != kManifestVersion)
    return Status(Code::kFailed, "its version is " + std::to_string(version),
                  "use a release of rmem that knows it");
  if (load_le<std::uint32_t>(&bytes[12]) != 0) return damaged("a field that has to be 0 is not");
  auto manifest = make(load_le<std::uint64_t>(&bytes[32]), load_le<std::uint64_t>(&bytes[40]));
  if (!manifest) return damaged(manifest.status().cause());
  std::memcpy(manifest->uuid.data(), &bytes[16], manifest->uuid.size());
  const auto bits = std::as_writable_bytes(manifest->written.words());
  if (bytes.size() != kHeader + bits.size() + 4) return damaged("its length is wrong");
  std::memcpy(bits.data(), &bytes[kHeader], bits.size());
  if (manifest->written.next(manifest->chunks()) != manifest->written.words().size() * 64)
    return damaged("it lists chunks beyond the end");
  return manifest;
}

}  // namespace rmem::store
