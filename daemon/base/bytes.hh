// SPDX-License-Identifier: MIT
// Byte buffers: little-endian integers in them, wherever they lie, and nothing in them.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

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

// At least one byte. Reads no further than to the first that is not zero.
inline bool all_zeros(std::span<const std::byte> bytes) {
  // Equal to itself shifted by one, and the first byte is zero.
  return bytes.front() == std::byte{0} &&
         std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0;
}

}  // namespace rmem
