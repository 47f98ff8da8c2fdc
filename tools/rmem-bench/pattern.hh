// SPDX-License-Identifier: MIT
// What every page of a measured region has to hold.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/status.hh"

namespace rmem::bench {

inline constexpr std::size_t kPage = 4096;

// Each word of each page is another one, so that a page that is zero, torn, or
// somebody else's is noticed.
void fill_pattern(std::span<std::byte> bytes, std::uint64_t first_page);

// kCorrupt, with the first wrong byte; `page` has kPage bytes.
Status check_pattern(std::span<const std::byte> page, std::uint64_t index);

// A file of `size` bytes with the pattern: for a server to export.
Status make_pattern_file(const std::string& path, std::uint64_t size);

}  // namespace rmem::bench
