// SPDX-License-Identifier: MIT
// A store in this process's memory: sparse, and gone with it.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>

#include "base/result.hh"
#include "store/store.hh"

namespace rmem::store {

// Memory is taken as it is written and given back by zero(). Every operation
// completes before the call returns. Identity and epoch are random, since
// nothing survives the process.
class MemStore final : public Store {
 public:
  // `size` > 0.
  explicit MemStore(std::uint64_t size);

  const Geometry& geometry() const override { return geometry_; }
  void read(std::uint64_t offset, std::span<std::byte> into, Done done, Urgency urgency) override;
  // ENOSPC when there is no memory.
  void write(std::uint64_t offset, std::span<const std::byte> from, Done done) override;
  void zero(std::uint64_t offset, std::uint64_t length, Done done) override;
  void flush(Done done) override;

  // Memory in use for contents, in bytes.
  std::uint64_t allocated() const { return chunks_.size() * kChunk; }

 private:
  static constexpr std::uint64_t kChunk = 64 << 10;

  Geometry geometry_;
  // By index; an absent chunk is zeros.
  std::unordered_map<std::uint64_t, std::unique_ptr<std::byte[]>> chunks_;
};

}  // namespace rmem::store
