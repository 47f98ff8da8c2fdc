// SPDX-License-Identifier: MIT
// Sizes and times as people write them.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hh"

namespace rmem {

// "4096", "64KiB", "1GiB": bytes, or a whole number with B, KiB, MiB, GiB, TiB.
// kUsage for anything else, 2^63 and more included.
Result<std::uint64_t> parse_size(std::string_view text);

// "500ms", "30s", "5m", "2h", and a plain "0". kUsage for anything else.
Result<std::chrono::milliseconds> parse_duration(std::string_view text);

// The exact size in the largest unit that divides it: "1GiB", "4097B".
std::string format_size(std::uint64_t bytes);

}  // namespace rmem
