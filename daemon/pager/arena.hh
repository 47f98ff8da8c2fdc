// SPDX-License-Identifier: MIT
// Where the bytes lie while they are under way between store and kernel.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace rmem::pager {

// A fixed piece of memory, handed out in blocks of a power of two between one
// page and 2 MiB (a buddy allocator). Chunks of different regions differ in
// size, and a fixed piece cannot run away; taking and giving back never
// allocates. Not thread-safe.
class Arena {
 public:
  static constexpr std::size_t kMinBlock = 4096;
  static constexpr std::size_t kMaxBlock = std::size_t{2} << 20;

  // `bytes` is rounded up to whole 2 MiB; the memory is anonymous and becomes
  // resident at once where the process has locked its memory.
  explicit Arena(std::size_t bytes);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // A block of at least `bytes` (1 to kMaxBlock), or an empty span when no
  // block of that size is free.
  std::span<std::byte> take(std::size_t bytes);
  // `block` as take() returned it, once.
  void give_back(std::span<std::byte> block);

  std::size_t size() const { return size_; }
  std::size_t free_bytes() const { return free_bytes_; }

 private:
  static constexpr unsigned kOrders = 10;  // 4 KiB << 0 .. 4 KiB << 9
  static constexpr std::uint8_t kTaken = 0xff;

  // Lies inside the free block that it describes.
  struct FreeBlock {
    FreeBlock* next;
    FreeBlock* previous;
  };

  static unsigned order_of(std::size_t bytes);
  std::size_t index_of(const void* block) const;
  void insert(std::byte* block, unsigned order);
  void remove(std::byte* block, unsigned order);

  std::byte* base_ = nullptr;
  std::size_t size_;
  std::size_t free_bytes_ = 0;
  std::array<FreeBlock*, kOrders> free_{};
  // Per smallest block: the order of the free block that begins there, else
  // kTaken.
  std::unique_ptr<std::uint8_t[]> free_order_;
};

}  // namespace rmem::pager
