// SPDX-License-Identifier: MIT
#include "pager/arena.hh"

#include <sys/mman.h>

#include <bit>
#include <cassert>
#include <cstring>
#include <new>

namespace rmem::pager {

Arena::Arena(std::size_t bytes) : size_((bytes + kMaxBlock - 1) / kMaxBlock * kMaxBlock) {
  void* memory = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();  // at start only
  base_ = static_cast<std::byte*>(memory);
  free_order_ = std::make_unique<std::uint8_t[]>(size_ / kMinBlock);
  std::memset(free_order_.get(), kTaken, size_ / kMinBlock);
  for (std::size_t at = size_; at != 0; at -= kMaxBlock) {
    insert(base_ + at - kMaxBlock, kOrders - 1);
  }
  free_bytes_ = size_;
}

Arena::~Arena() { ::munmap(base_, size_); }

unsigned Arena::order_of(std::size_t bytes) {
  const std::size_t pages = (bytes + kMinBlock - 1) / kMinBlock;
  return static_cast<unsigned>(std::bit_width(pages - 1));
}

std::size_t Arena::index_of(const void* block) const {
  return static_cast<std::size_t>(static_cast<const std::byte*>(block) - base_) / kMinBlock;
}

void Arena::insert(std::byte* block, unsigned order) {
  auto* node = new (block) FreeBlock{free_[order], nullptr};
  if (node->next) node->next->previous = node;
  free_[order] = node;
  free_order_[index_of(block)] = static_cast<std::uint8_t>(order);
}

void Arena::remove(std::byte* block, unsigned order) {
  auto* node = reinterpret_cast<FreeBlock*>(block);
  if (node->next) node->next->previous = node->previous;
  if (node->previous) {
    node->previous->next = node->next;
  } else {
    free_[order] = node->next;
  }
  free_order_[index_of(block)] = kTaken;
}

std::span<std::byte> Arena::take(std::size_t bytes) {
  if (bytes == 0 || bytes > kMaxBlock) return {};
  const unsigned order = order_of(bytes);
  unsigned found = order;
  while (found < kOrders && !free_[found]) ++found;
  if (found == kOrders) return {};

  auto* block = reinterpret_cast<std::byte*>(free_[found]);
  remove(block, found);
  while (found > order) {  // halve it, keep the lower half
    --found;
    insert(block + (kMinBlock << found), found);
  }
  const std::size_t length = kMinBlock << order;
  free_bytes_ -= length;
  return {block, length};
}

void Arena::give_back(std::span<std::byte> block) {
  assert(std::has_single_bit(block.size()));
  free_bytes_ += block.size();
  std::size_t offset = static_cast<std::size_t>(block.data() - base_);
  unsigned order = order_of(block.size());
  while (order + 1 < kOrders) {  // join it with its buddy as long as that is free
    const std::size_t buddy = offset ^ (kMinBlock << order);
    if (free_order_[buddy / kMinBlock] != order) break;
    remove(base_ + buddy, order);
    offset &= ~(kMinBlock << order);
    ++order;
  }
  insert(base_ + offset, order);
}

}  // namespace rmem::pager
