// SPDX-License-Identifier: MIT
// The bounds check that every store makes.
#pragma once

#include <cstdint>

namespace rmem::store {

// Whether [offset, offset + length) is a non-empty part of `size` bytes; safe
// against overflow.
inline bool inside(std::uint64_t offset, std::uint64_t length, std::uint64_t size) {
  return length > 0 && length <= size && offset <= size - length;
}

}  // namespace rmem::store
