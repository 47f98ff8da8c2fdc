// SPDX-License-Identifier: MIT
#include "server/buffers.hh"

#include <algorithm>
#include <bit>
#include <utility>

namespace rmem::server {

void Buffers::set_limit(std::uint64_t bytes) {
  limit_ = bytes;
  wake();
}

Buffers::Buffer Buffers::take(std::size_t bytes) {
  const std::size_t power =
      std::max<std::size_t>(std::bit_width(std::max<std::size_t>(bytes, 1) - 1), kLeast);
  Buffer buffer;
  if (power <= kMost && !free_[power - kLeast].empty()) {
    buffer = std::move(free_[power - kLeast].back());
    free_[power - kLeast].pop_back();
    kept_ -= buffer.capacity;
  } else {
    buffer.capacity = std::size_t{1} << power;
    buffer.memory =
        std::make_unique_for_overwrite<std::byte[]>(wire::kHeaderBytes + buffer.capacity);
  }
  in_use_ += buffer.capacity;
  return buffer;
}

void Buffers::give(Buffer buffer) {
  if (buffer.capacity == 0) return;
  in_use_ -= buffer.capacity;
  const std::size_t power = std::bit_width(buffer.capacity) - 1;
  if (power <= kMost && kept_ + buffer.capacity <= kKept) {
    kept_ += buffer.capacity;
    free_[power - kLeast].push_back(std::move(buffer));
  }
  wake();
}

void Buffers::wake() {
  if (scarce() || waiters_.empty()) return;
  for (Waiter* const one : std::exchange(waiters_, {})) one->there_is_room();
}

void Buffers::wait(Waiter& who) {
  if (std::ranges::find(waiters_, &who) == waiters_.end()) waiters_.push_back(&who);
}

void Buffers::leave(Waiter& who) { std::erase(waiters_, &who); }

}  // namespace rmem::server
