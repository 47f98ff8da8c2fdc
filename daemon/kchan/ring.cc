// SPDX-License-Identifier: MIT
#include "kchan/ring.hh"

#include <atomic>
#include <bit>
#include <cstring>

namespace rmem::kchan {
namespace {

Status bad_ring(const char* why) {
  return Status(Code::kFailed, std::string("request ring: ") + why,
                "use programs and module of one release");
}

}  // namespace

Result<Ring> Ring::open(std::span<std::byte> memory) {
  if (memory.size() < sizeof(rmem_ring_header)) return bad_ring("too short for its header");
  auto* shared = reinterpret_cast<rmem_ring_header*>(memory.data());
  rmem_ring_header header;
  std::memcpy(&header, shared, sizeof(header));
  if (header.magic != RMEM_RING_MAGIC) return bad_ring("wrong magic");
  if (header.entry_bytes != sizeof(rmem_request)) return bad_ring("entries of another size");
  if (!std::has_single_bit(header.entries)) return bad_ring("its length is no power of two");
  const std::uint64_t end =
      header.entries_offset + std::uint64_t{header.entries} * sizeof(rmem_request);
  if (header.entries_offset < sizeof(header) ||
      header.entries_offset % alignof(rmem_request) != 0 || end > memory.size()) {
    return bad_ring("its entries lie outside of it");
  }
  return Ring(shared, memory.data() + header.entries_offset, header.entries);
}

Ring::Ring(rmem_ring_header* header, const std::byte* entries, std::uint32_t entry_count)
    : header_(header), entries_(entries), mask_(entry_count - 1), tail_(header->tail) {}

Ring::Pop Ring::pop(rmem_request& out) {
  // Pairs with the kernel's store-release of head: the entry is whole.
  const std::uint32_t head =
      std::atomic_ref<std::uint32_t>(header_->head).load(std::memory_order_acquire);
  const std::uint32_t filled = head - tail_;
  if (filled == 0) return Pop::kEmpty;
  if (filled > capacity()) return Pop::kDamaged;
  std::memcpy(&out, entries_ + std::size_t{tail_ & mask_} * sizeof(out), sizeof(out));
  ++tail_;
  // The copy is done before the kernel may reuse the place.
  std::atomic_ref<std::uint32_t>(header_->tail).store(tail_, std::memory_order_release);
  return Pop::kEntry;
}

}  // namespace rmem::kchan
