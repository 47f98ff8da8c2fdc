// SPDX-License-Identifier: MIT
// How often operator new was called; for tests that link allocations.cc.
#pragma once

#include <cstddef>

namespace rmem::test {

// Since the start of the program, by all threads.
std::size_t allocations();

}  // namespace rmem::test
