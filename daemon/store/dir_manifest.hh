// SPDX-License-Identifier: MIT
// The manifest of a dir store: docs/stores.md has the layout.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.hh"
#include "base/uuid.hh"

namespace rmem::store {

// A bit for each chunk.
class Bitmap {
 public:
  explicit Bitmap(std::uint64_t bits = 0) : words_((bits + 63) / 64) {}
  bool test(std::uint64_t i) const { return words_[i / 64] >> (i % 64) & 1; }
  void set(std::uint64_t i) { words_[i / 64] |= std::uint64_t{1} << (i % 64); }
  void reset(std::uint64_t i) { words_[i / 64] &= ~(std::uint64_t{1} << (i % 64)); }
  std::uint64_t count() const;
  // The first one of `from` and after, or the number of bits there is room for.
  std::uint64_t next(std::uint64_t from) const;

  std::span<std::uint64_t> words() { return words_; }
  std::span<const std::uint64_t> words() const { return words_; }
  bool operator==(const Bitmap&) const = default;

 private:
  std::vector<std::uint64_t> words_;
};

struct DirManifest {
  static constexpr std::uint64_t kMinChunk = 4 << 10;
  static constexpr std::uint64_t kMaxChunk = 1 << 30;
  static constexpr std::uint64_t kMaxChunks = 1 << 24;

  Uuid uuid{};
  std::uint64_t size = 0;
  std::uint64_t chunk = 0;  // bytes, a power of two
  Bitmap written;

  // A new one, with nothing written. kUsage for what cannot be.
  static Result<DirManifest> make(std::uint64_t size, std::uint64_t chunk);

  std::uint64_t chunks() const { return (size + chunk - 1) / chunk; }
  std::vector<std::byte> encode() const;
  // kCorrupt for anything but what encode() gave; kFailed: of another version.
  static Result<DirManifest> decode(std::span<const std::byte> bytes);
};

}  // namespace rmem::store
