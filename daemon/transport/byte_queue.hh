// SPDX-License-Identifier: MIT
// A stretch of a stream that is kept: bytes stay where they are until they are discarded.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <span>

namespace rmem::transport {

// Offsets count from the stream's beginning.
class ByteQueue {
 public:
  std::uint64_t begin() const { return begin_; }
  std::uint64_t end() const { return end_; }
  std::size_t size() const { return static_cast<std::size_t>(end_ - begin_); }

  void append(std::span<const std::uint8_t> bytes) {
    while (!bytes.empty()) {
      const std::size_t at = end_ - base_;
      if (at == blocks_.size() * kBlock) blocks_.push_back(std::make_unique<Block>());
      const auto part = bytes.first(std::min(bytes.size(), kBlock - at % kBlock));
      std::memcpy(blocks_[at / kBlock]->data() + at % kBlock, part.data(), part.size());
      end_ += part.size();
      bytes = bytes.subspan(part.size());
    }
  }
  // What is at `offset`, as far as it is in one piece.
  std::span<const std::uint8_t> at(std::uint64_t offset) const {
    if (offset >= end_) return {};
    const std::size_t at = offset - base_;
    const std::size_t piece = std::min<std::uint64_t>(kBlock - at % kBlock, end_ - offset);
    return {blocks_[at / kBlock]->data() + at % kBlock, piece};
  }
  // What is before `offset`.
  void discard(std::uint64_t offset) {
    begin_ = std::clamp(offset, begin_, end_);
    for (; begin_ - base_ >= kBlock; base_ += kBlock) blocks_.pop_front();
  }

 private:
  static constexpr std::size_t kBlock = 64 << 10;
  using Block = std::array<std::uint8_t, kBlock>;

  std::deque<std::unique_ptr<Block>> blocks_;
  std::uint64_t base_ = 0;  // where the first of them begins
  std::uint64_t begin_ = 0, end_ = 0;
};

}  // namespace rmem::transport
