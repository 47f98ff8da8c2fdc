// SPDX-License-Identifier: MIT
// The daemon's end of the request ring (linux/rmem.h, part 3).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.hh"
#include "linux/rmem.h"

namespace rmem::kchan {

// Takes requests out of memory that it shares with the kernel. The memory is
// treated as hostile: its header is read once, and each entry is copied once,
// before anybody looks at it. What an entry *means* is judged by the pager.
class Ring {
 public:
  // `memory` is the mapping of the control fd; not owned, must outlive the
  // ring. Fails when header and mapping do not fit each other.
  static Result<Ring> open(std::span<std::byte> memory);

  enum class Pop {
    kEntry,    // `out` holds the oldest entry, its place is given back
    kEmpty,    // nothing there
    kDamaged,  // head makes no sense; nothing was taken
  };
  Pop pop(rmem_request& out);

  std::uint32_t capacity() const { return mask_ + 1; }

 private:
  Ring(rmem_ring_header* header, const std::byte* entries, std::uint32_t entry_count);

  rmem_ring_header* header_;
  const std::byte* entries_;
  std::uint32_t mask_;
  std::uint32_t tail_;  // ours; the shared one is only ever written
};

}  // namespace rmem::kchan
