// SPDX-License-Identifier: MIT
#include "base/crc32c.hh"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace rmem {
namespace {

constexpr std::uint32_t kPolynomial = 0x82f63b78;  // reflected

// kTable[k][b]: the effect of byte b followed by k zero bytes.
constexpr auto kTable = [] {
  std::array<std::array<std::uint32_t, 256>, 8> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? kPolynomial : 0);
    table[0][byte] = crc;
  }
  for (std::size_t byte = 0; byte < 256; ++byte)
    for (std::size_t k = 1; k < table.size(); ++k)
      table[k][byte] = (table[k - 1][byte] >> 8) ^ table[0][table[k - 1][byte] & 0xff];
  return table;
}();

#if defined(__x86_64__)

// The crc32 instruction takes three cycles but one can start in every cycle, so
// three stretches are worked on at once and joined. kBlock is the length of a
// stretch.
constexpr std::size_t kBlock = 4096;

// The linear map "append kBlock zero bytes", as four tables of 256.
using Shift = std::array<std::array<std::uint32_t, 256>, 4>;

constexpr std::uint32_t append_zeros(std::uint32_t crc, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) crc = (crc >> 8) ^ kTable[0][crc & 0xff];
  return crc;
}

Shift make_shift() {
  // The map is linear: the image of each single bit gives the rest.
  std::array<std::uint32_t, 32> bit{};
  for (unsigned i = 0; i < 32; ++i) bit[i] = append_zeros(1u << i, kBlock);
  Shift shift{};
  for (std::size_t part = 0; part < 4; ++part)
    for (std::size_t byte = 0; byte < 256; ++byte)
      for (std::size_t i = 0; i < 8; ++i)
        if (byte >> i & 1) shift[part][byte] ^= bit[part * 8 + i];
  return shift;
}

std::uint32_t apply(const Shift& shift, std::uint32_t crc) {
  return shift[0][crc & 0xff] ^ shift[1][crc >> 8 & 0xff] ^ shift[2][crc >> 16 & 0xff] ^
         shift[3][crc >> 24];
}

std::uint64_t load(const std::byte* at) {
  std::uint64_t word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

__attribute__((target("sse4.2"))) std::uint32_t crc32c_sse42(std::span<const std::byte> data,
                                                             std::uint32_t crc) {
  static const Shift shift = make_shift();
  const std::byte* at = data.data();
  std::size_t left = data.size();
  std::uint64_t a = static_cast<std::uint32_t>(~crc);
  for (; left >= 3 * kBlock; left -= 3 * kBlock, at += 3 * kBlock) {
    std::uint64_t b = 0, c = 0;
    for (std::size_t i = 0; i < kBlock; i += 8) {
      a = _mm_crc32_u64(a, load(at + i));
      b = _mm_crc32_u64(b, load(at + kBlock + i));
      c = _mm_crc32_u64(c, load(at + 2 * kBlock + i));
    }
    a = apply(shift, static_cast<std::uint32_t>(a)) ^ b;
    a = apply(shift, static_cast<std::uint32_t>(a)) ^ c;
  }
  for (; left >= 8; left -= 8, at += 8) a = _mm_crc32_u64(a, load(at));
  auto tail = static_cast<std::uint32_t>(a);
  for (; left > 0; --left, ++at) tail = _mm_crc32_u8(tail, static_cast<std::uint8_t>(*at));
  return ~tail;
}

#endif

}  // namespace

std::uint32_t internal::crc32c_table(std::span<const std::byte> data, std::uint32_t crc) {
  const std::byte* at = data.data();
  std::size_t left = data.size();
  crc = ~crc;
  for (; left >= 8; left -= 8, at += 8) {
    std::uint64_t word;
    std::memcpy(&word, at, sizeof word);
    word ^= crc;
    crc = 0;
    for (std::size_t k = 0; k < 8; ++k) crc ^= kTable[7 - k][word >> (8 * k) & 0xff];
  }
  for (; left > 0; --left, ++at)
    crc = (crc >> 8) ^ kTable[0][(crc ^ static_cast<std::uint8_t>(*at)) & 0xff];
  return ~crc;
}

std::uint32_t crc32c(std::span<const std::byte> data, std::uint32_t crc) {
#if defined(__x86_64__)
  static const bool fast = __builtin_cpu_supports("sse4.2");
  if (fast) return crc32c_sse42(data, crc);
#endif
  return internal::crc32c_table(data, crc);
}

}  // namespace rmem
