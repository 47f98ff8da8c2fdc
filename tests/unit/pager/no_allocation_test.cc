// SPDX-License-Identifier: MIT
// The data path must not allocate: an allocation may wait for the very pages
// that it would help to free. A program of its own, because it counts every
// operator new.
#include <cstdlib>
#include <new>

#include "fakes.hh"

namespace {
std::size_t allocations = 0;
}

void* operator new(std::size_t size) {
  ++allocations;
  if (void* p = std::malloc(size)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }

namespace rmem::pager {
namespace {

class NoAllocation : public PagerTest {
 protected:
  // Fetches, prefetches, hits, writes, zeros and a lost connection.
  void load(std::uint64_t seed) {
    for (std::uint64_t i = 0; i < 64; ++i) {
      fetch(seed + i, (seed + 3 * i) % 256, 0, static_cast<std::uint32_t>(i % 3));
      fetch(seed + 100 + i, i, RMEM_REQ_PREFETCH);
      hit(i * kChunk);
      write(1 + (seed + i) % 4096,
            i % 3 == 0 ? RMEM_REQ_SYNC | (i % 6 == 0 ? RMEM_REQ_LAST : 0) : 0);
    }
    pager->accept(entry(seed + 300, RMEM_OP_ZERO, 0, kChunk));
    pager->pump();
    store.answer(Kind::kRead, EBADMSG);
    store.answer_all(Kind::kRead);
    pager->disconnect(kId, "x");
    while (!store.operations.empty()) {
      const auto kind = store.operations.front().kind;
      store.answer(kind, EAGAIN);
    }
    pager->connect(kId, store);
    while (!store.operations.empty()) {
      const auto kind = store.operations.front().kind;
      store.answer(kind);
    }
    pass(std::chrono::milliseconds(5000));
    kernel.fills.clear();
    kernel.completions.clear();
    kernel.states.clear();
    kernel.windows.clear();
  }
};

TEST_F(NoAllocation, SteadyLoad) {
  kernel.states.reserve(64);
  kernel.windows.reserve(1024);
  load(0);
  load(1000);  // the high-water mark is reached
  const std::size_t before = allocations;
  for (std::uint64_t round = 2; round < 20; ++round) load(round * 1000);
  EXPECT_GT(before, 0u);  // it does count
  EXPECT_EQ(allocations - before, 0u);
  EXPECT_TRUE(pager->idle(kId));
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

}  // namespace
}  // namespace rmem::pager
