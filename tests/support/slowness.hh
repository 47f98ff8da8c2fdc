// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

namespace rmem::test {

// How many times as long what is done by chance takes: instrumented, several times.
#ifdef RMEM_SANITIZED
inline constexpr std::uint64_t kSlowness = 10;
#else
inline constexpr std::uint64_t kSlowness = 1;
#endif

}  // namespace rmem::test
