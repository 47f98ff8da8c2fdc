// SPDX-License-Identifier: MIT
// Replaces operator new by one that counts. In a file of its own, or the
// compiler sees through it and complains.
#include "support/allocations.hh"

#include <atomic>
#include <cstdlib>
#include <new>

namespace {
std::atomic<std::size_t> g_allocations{0};
}

namespace rmem::test {
std::size_t allocations() { return g_allocations; }
}  // namespace rmem::test

void* operator new(std::size_t size) {
  ++g_allocations;
  if (void* memory = std::malloc(size != 0 ? size : 1)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
