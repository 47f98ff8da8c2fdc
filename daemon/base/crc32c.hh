// SPDX-License-Identifier: MIT
// CRC-32C (Castagnoli), the checksum of payloads on the wire.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace rmem {

// The checksum of what `crc` is the checksum of, followed by `data`; start with
// 0. crc32c("123456789") is 0xe3069283.
std::uint32_t crc32c(std::span<const std::byte> data, std::uint32_t crc = 0);

namespace internal {
// The same without the processor's help; for the test that compares the two.
std::uint32_t crc32c_table(std::span<const std::byte> data, std::uint32_t crc);
}  // namespace internal

}  // namespace rmem
