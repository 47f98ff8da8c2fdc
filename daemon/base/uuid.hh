// SPDX-License-Identifier: MIT
// Names that nobody else has.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hh"

namespace rmem {

using Uuid = std::array<std::uint8_t, 16>;

// Version 4, from the kernel's random numbers.
Uuid uuid_random();

// A random number that is not 0.
std::uint64_t random_u64();

// "01234567-89ab-cdef-0123-456789abcdef", lower case.
std::string uuid_to_string(const Uuid& uuid);

// Accepts what uuid_to_string() gives, in either case; kUsage otherwise.
Result<Uuid> uuid_parse(std::string_view text);

}  // namespace rmem
