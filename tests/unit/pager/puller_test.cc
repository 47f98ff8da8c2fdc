// SPDX-License-Identifier: MIT
#include "fakes.hh"

namespace rmem::pager {
namespace {

// With a kernel that keeps a page cache and answers every prefetch.
class PullerTest : public PagerTest {
 protected:
  // What the kernel and the store would do, until nothing is left to do.
  void settle() {
    store.immediate = true;
    for (bool more = true; more;) {
      more = false;
      for (; seen_ < kernel.windows.size(); ++seen_) {
        const auto w = kernel.windows[seen_];
        for (std::uint64_t at = w.offset; at < w.offset + w.length; at += kChunk) {
          if (resident_.insert(at / kChunk).second) {
            fetch(1 + at / kChunk, at / kChunk, RMEM_REQ_PREFETCH, 0);
          }
        }
        more = true;
      }
      pager->tick();
      more = more || seen_ < kernel.windows.size();
    }
  }

  std::set<std::uint64_t> resident_;
  std::size_t seen_ = 0;
};

TEST_F(PullerTest, FetchesWhatTheRangeLacksOnce) {
  resident_ = {3, 5};
  EXPECT_EQ(pager->pull(kId, 2 * kChunk, 70 * kChunk), 1u);
  EXPECT_TRUE(pager->puller(kId)->progress());
  settle();
  EXPECT_EQ(store.reads, 68u);
  EXPECT_EQ(resident_.size(), 70u);
  EXPECT_EQ(*resident_.begin(), 2u);
  EXPECT_EQ(*resident_.rbegin(), 71u);
}

TEST_F(PullerTest, IsOverWhenNothingWasLacking) {
  kernel.prefetch_queues = false;
  pager->pull(kId, 0, kSize);
  settle();
  EXPECT_EQ(pager->puller(kId)->done(), 1u);
  EXPECT_FALSE(pager->puller(kId)->progress());
  const std::size_t asked = kernel.windows.size();
  pager->tick();
  EXPECT_EQ(kernel.windows.size(), asked);
}

TEST_F(PullerTest, AsksAgainForWhatWasGivenUpButNotForEver) {
  // The kernel says each time that something was lacking.
  pager->pull(kId, 0, 64 * kChunk);
  settle();
  EXPECT_EQ(pager->puller(kId)->done(), 1u);
  EXPECT_EQ(kernel.windows.size(), 3u * 2);
}

TEST_F(PullerTest, OneRangeAfterTheOther) {
  kernel.prefetch_queues = false;
  pager->disconnect(kId, "gone");
  EXPECT_EQ(pager->pull(kId, 0, kChunk), 1u);
  EXPECT_EQ(pager->pull(kId, 8 * kChunk, kChunk), 2u);
  EXPECT_EQ(pager->puller(kId)->progress()->offset, 0u);
  pager->connect(kId, store);
  settle();
  EXPECT_EQ(pager->puller(kId)->done(), 2u);
  EXPECT_EQ(kernel.windows.back().offset, 8 * kChunk);
}

TEST_F(PullerTest, WaitsWhileTheStoreIsAway) {
  pager->disconnect(kId, "gone");
  pager->pull(kId, 0, kSize);
  pager->tick();
  EXPECT_TRUE(kernel.windows.empty());
  pager->connect(kId, store);
  settle();
  EXPECT_EQ(store.reads, kSize / kChunk);
  EXPECT_EQ(pager->puller(kId)->done(), 1u);
}

TEST_F(PullerTest, EndsAtTheResidentLimit) {
  kernel.prefetch_error = EDQUOT;
  for (int i = 0; i < 2; ++i) {
    pager->pull(kId, 0, kSize);
    settle();
    pager->tick();
  }
  EXPECT_EQ(pager->puller(kId)->done(), 2u);
  EXPECT_EQ(pager->puller(kId)->limited(), (std::deque<std::uint64_t>{1, 2}));
  kernel.prefetch_error = 0;
  kernel.prefetch_queues = false;
  pager->pull(kId, 0, kChunk);
  settle();
  EXPECT_EQ(pager->puller(kId)->done(), 3u);
  EXPECT_EQ(pager->puller(kId)->limited().size(), 2u);
  EXPECT_EQ(kernel.prefetch_flags, 0u);  // it evicts nothing
}

TEST_F(PullerTest, DemandGoesFirst) {
  pager->pull(kId, 0, kSize);
  for (std::uint64_t i = 0; i < 32; ++i) fetch(1 + i, i, RMEM_REQ_PREFETCH, 0);
  fetch(1000, 200);
  pager->pump();
  EXPECT_EQ(store.operations.front().offset, 200 * kChunk);
}

}  // namespace
}  // namespace rmem::pager
