// SPDX-License-Identifier: MIT
// Memory that runs out when it is told to. In a file of its own, or the compiler sees
// through it and complains.
#include <cstdlib>
#include <new>

#include "simulation/host.hh"

void* operator new(std::size_t size) {
  rmem::sim::Host* const host = rmem::sim::Host::current();
  if (host != nullptr && host->fails(rmem::sim::Host::Call::kMemory)) throw std::bad_alloc();
  if (void* memory = std::malloc(size != 0 ? size : 1)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
