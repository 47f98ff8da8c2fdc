// SPDX-License-Identifier: MIT
// The order in which a run has touched the chunks of a region.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <unordered_set>
#include <vector>

#include "pager/range.hh"

namespace rmem::pager {

// Bounded: what is touched after kMost chunks is not noted. Chunk sizes are powers of two.
class TouchLog {
 public:
  static constexpr std::size_t kMost = 256 << 10;

  TouchLog(std::uint64_t size, std::uint64_t chunk)
      : size_(size), shift_(std::countr_zero(chunk)) {}

  // Only the first touch of a chunk counts.
  void touched(std::uint64_t offset) {
    const std::uint64_t chunk = offset >> shift_;
    if (order_.size() < kMost && seen_.insert(chunk).second) order_.push_back(chunk);
  }

  std::size_t chunks() const { return order_.size(); }

  // What it takes, about: the list, and in the set a node and a bucket each.
  std::uint64_t bytes() const { return chunks() * kBytesEach; }
  static constexpr std::uint64_t most_bytes() { return kMost * kBytesEach; }

  // In the order of touching; chunks that follow each other in both are one range.
  std::vector<Range> ranges() const {
    std::vector<Range> ranges;
    for (const std::uint64_t chunk : order_) {
      const std::uint64_t offset = chunk << shift_;
      const std::uint64_t length = std::min(std::uint64_t{1} << shift_, size_ - offset);
      if (!ranges.empty() && ranges.back().offset + ranges.back().length == offset)
        ranges.back().length += length;
      else
        ranges.push_back({offset, length});
    }
    return ranges;
  }

 private:
  static constexpr std::uint64_t kBytesEach = 64;

  const std::uint64_t size_;
  const int shift_;
  std::vector<std::uint64_t> order_;
  std::unordered_set<std::uint64_t> seen_;
};

}  // namespace rmem::pager
