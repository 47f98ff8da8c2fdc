// SPDX-License-Identifier: MIT
// Memory for the requests and replies of all sessions together: bounded, and kept for the
// next ones.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "wire/messages.hh"

namespace rmem::server {

// Not thread-safe.
class Buffers {
 public:
  class Waiter {
   public:
    // Said once; from within give(), so not the place to take some.
    virtual void there_is_room() = 0;

   protected:
    ~Waiter() = default;
  };
  // Room for a payload, and right in front of it for its header, so that one piece has both.
  struct Buffer {
    std::byte* bytes() const { return memory ? memory.get() + wire::kHeaderBytes : nullptr; }
    std::span<std::byte, wire::kHeaderBytes> in_front() const {
      return std::span<std::byte, wire::kHeaderBytes>(memory.get(), wire::kHeaderBytes);
    }

    std::unique_ptr<std::byte[]> memory;
    std::size_t capacity = 0;  // of the payload
  };

  explicit Buffers(std::uint64_t limit) : limit_(limit) {}

  void set_limit(std::uint64_t bytes);
  // Of at least so many bytes, whatever is in them. Never refuses: who can do without asks
  // scarce() before.
  Buffer take(std::size_t bytes);
  void give(Buffer buffer);

  // The limit is reached.
  bool scarce() const { return in_use_ >= limit_; }
  // Until it is not any more.
  void wait(Waiter& who);
  void leave(Waiter& who);

  std::uint64_t in_use() const { return in_use_; }
  std::uint64_t kept() const { return kept_; }

 private:
  void wake();

  // Powers of two, from 4 KiB to the longest payload.
  static constexpr std::size_t kLeast = 12, kMost = 22;
  static constexpr std::uint64_t kKept = 64 << 20;

  std::uint64_t limit_;
  std::uint64_t in_use_ = 0;
  std::uint64_t kept_ = 0;
  std::array<std::vector<Buffer>, kMost - kLeast + 1> free_;
  std::vector<Waiter*> waiters_;
};

}  // namespace rmem::server
