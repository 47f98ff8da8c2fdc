// SPDX-License-Identifier: MIT
// Little-endian integers in byte buffers, wherever they lie.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace rmem {

static_assert(std::endian::native == std::endian::little,
              "a big-endian host needs byte swaps in load_le and store_le");

// `from` must have sizeof(T) bytes; any alignment.
template <std::unsigned_integral T>
T load_le(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// `to` must have room for sizeof(T) bytes; any alignment.
template <std::unsigned_integral T>
void store_le(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

}  // namespace rmem
