// SPDX-License-Identifier: MIT
#include "fakes.hh"

namespace rmem::pager {
namespace {

// With a kernel that keeps a page cache and answers every prefetch.
class PullerTest : public PagerTest {
 protected:
  // What has been asked for arrives from the ring. Whether there was anything.
  bool take_ring() {
    const bool any = seen_ < kernel.windows.size();
    while (seen_ < kernel.windows.size()) {
      const auto w = kernel.windows[seen_++];
      for (std::uint64_t at = w.offset; at < w.offset + w.length; at += kChunk) {
        if (resident_.insert(at / kChunk).second) {
          fetch(1 + at / kChunk, at / kChunk, RMEM_REQ_PREFETCH, 0);
        }
      }
    }
    return any;
  }
  // What the kernel and the store would do, until nothing is left to do.
  void settle() {
    store.immediate = true;
    for (bool more = true; more;) {
      more = take_ring();
      pager->tick();
      more = more || seen_ < kernel.windows.size();
    }
  }

  std::set<std::uint64_t> resident_;
  std::size_t seen_ = 0;
};

TEST_F(PullerTest, FetchesWhatTheRangeLacksOnce) {
  resident_ = {3, 5};
  EXPECT_EQ(pager->pull(kId, {{2 * kChunk, 70 * kChunk}}), 1u);
  EXPECT_TRUE(pager->puller(kId)->progress());
  settle();
  EXPECT_EQ(store.reads, 68u);
  EXPECT_EQ(resident_.size(), 70u);
  EXPECT_EQ(*resident_.begin(), 2u);
  EXPECT_EQ(*resident_.rbegin(), 71u);
}

TEST_F(PullerTest, IsOverWhenNothingWasLacking) {
  kernel.prefetch_queues = false;
  pager->pull(kId, {{0, kSize}});
  settle();
  EXPECT_EQ(pager->puller(kId)->done(), 1u);
  EXPECT_FALSE(pager->puller(kId)->progress());
  const std::size_t asked = kernel.windows.size();
  pager->tick();
  EXPECT_EQ(kernel.windows.size(), asked);
}

TEST_F(PullerTest, AsksAgainForWhatWasGivenUpButNotForEver) {
  // The kernel says each time that something was lacking.
  pager->pull(kId, {{0, 64 * kChunk}});
  settle();
  EXPECT_EQ(pager->puller(kId)->done(), 1u);
  EXPECT_EQ(kernel.windows.size(), 3u * 3);
}

// On a busy machine it may lie there for long.
TEST_F(PullerTest, WhatLiesInTheRingIsUnderWay) {
  pager->set_drain([this] {
    (void)take_ring();
    return true;
  });
  pager->pull(kId, {{0, kSize}});
  for (int i = 0; i < 100; ++i) pager->tick();
  EXPECT_LE(resident_.size(), 64u);  // all of it asked for, none answered
  EXPECT_EQ(pager->puller(kId)->done(), 0u);
}

TEST_F(PullerTest, KeepsToTheRegionsRateWhichMayChange) {
  using namespace std::chrono_literals;
  const auto chunks_in_two_seconds = [&] {
    const std::size_t before = resident_.size();
    for (int i = 0; i < 200; ++i) {
      pass(10ms);
      settle();
    }
    return resident_.size() - before;
  };
  pager->limit(kId, 10 * kChunk, 0);
  pager->pull(kId, {{0, kSize}});
  EXPECT_NEAR(static_cast<double>(chunks_in_two_seconds()), 20, 3);
  pager->limit(kId, 50 * kChunk, 0);
  EXPECT_NEAR(static_cast<double>(chunks_in_two_seconds()), 100, 6);
  // Nobody who waits is held back.
  fetch(5000, 250);
  pager->pump();
  EXPECT_TRUE(kernel.filled(5000));
  pager->limit(kId, 0, 0);
  settle();
  EXPECT_EQ(resident_.size(), kSize / kChunk);
}

TEST_F(PullerTest, OneRangeAfterTheOther) {
  kernel.prefetch_queues = false;
  pager->disconnect(kId, "gone");
  EXPECT_EQ(pager->pull(kId, {{0, kChunk}}), 1u);
  EXPECT_EQ(pager->pull(kId, {{8 * kChunk, kChunk}}), 2u);
  EXPECT_EQ(pager->puller(kId)->progress()->offset, 0u);
  pager->connect(kId, store);
  settle();
  EXPECT_EQ(pager->puller(kId)->done(), 2u);
  EXPECT_EQ(kernel.windows.back().offset, 8 * kChunk);
}

// As a recording has them: in no order, some of a chunk only, one of less.
TEST_F(PullerTest, RangesOfOnePullGoInTheirOrder) {
  EXPECT_EQ(pager->pull(kId, {{9 * kChunk, 2 * kChunk}, {3 * kChunk, kChunk}, {kChunk, 4096}}), 1u);
  EXPECT_EQ(pager->puller(kId)->progress()->length, 3 * kChunk + 4096);
  settle();
  ASSERT_GE(kernel.windows.size(), 3u);
  EXPECT_EQ(kernel.windows[0].offset, 9 * kChunk);
  EXPECT_EQ(kernel.windows[0].length, 2 * kChunk);
  EXPECT_EQ(kernel.windows[1].offset, 3 * kChunk);
  EXPECT_EQ(kernel.windows[2].offset, kChunk);
  EXPECT_EQ(resident_, (std::set<std::uint64_t>{1, 3, 9, 10}));
  EXPECT_EQ(pager->puller(kId)->done(), 1u);
}

TEST_F(PullerTest, AWindowOfShortRangesHasNoMoreChunksThanALongOne) {
  std::vector<Range> ranges;
  for (std::uint64_t i = 0; i < 100; ++i) ranges.push_back({2 * i * kChunk, kChunk});
  kernel.prefetch_queues = false;  // nothing is under way, ever
  pager->pull(kId, ranges);
  // Those of one round, as nothing came of them that would begin another.
  EXPECT_LE(kernel.windows.size(), 64u);
  settle();
  EXPECT_EQ(kernel.windows.size(), 100u);
  EXPECT_EQ(pager->puller(kId)->done(), 1u);
}

TEST_F(PullerTest, WaitsWhileTheStoreIsAway) {
  pager->disconnect(kId, "gone");
  pager->pull(kId, {{0, kSize}});
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
    pager->pull(kId, {{0, kSize}});
    settle();
    pager->tick();
  }
  EXPECT_EQ(pager->puller(kId)->done(), 2u);
  EXPECT_EQ(pager->puller(kId)->limited(), (std::deque<std::uint64_t>{1, 2}));
  kernel.prefetch_error = 0;
  kernel.prefetch_queues = false;
  pager->pull(kId, {{0, kChunk}});
  settle();
  EXPECT_EQ(pager->puller(kId)->done(), 3u);
  EXPECT_EQ(pager->puller(kId)->limited().size(), 2u);
  EXPECT_EQ(kernel.prefetch_flags, 0u);  // it evicts nothing
}

class RecordTest : public PagerTest {
 protected:
  void miss(std::uint64_t chunk) { fetch(next_++, chunk); }
  std::uint64_t next_ = 1;
};

TEST_F(RecordTest, NotesTheFirstTouchOfEachChunkInOrder) {
  EXPECT_FALSE(pager->recorded(kId));
  EXPECT_FALSE(pager->stop_recording(kId));
  const auto before = pager->memory();
  pager->record(kId);
  for (const std::uint64_t chunk : {7, 2, 3, 7, 4, 1}) miss(chunk);
  EXPECT_EQ(pager->recorded(kId), 5u);
  EXPECT_EQ(pager->memory().bound - before.bound, TouchLog::most_bytes());
  const std::vector<Range> expected = {
      {7 * kChunk, kChunk}, {2 * kChunk, 3 * kChunk}, {kChunk, kChunk}};
  EXPECT_EQ(pager->stop_recording(kId), expected);
  EXPECT_FALSE(pager->recorded(kId));
}

TEST_F(RecordTest, ReadsNothingAheadMeanwhile) {
  pager->record(kId);
  for (std::uint64_t chunk = 0; chunk < 8; ++chunk) miss(chunk);
  EXPECT_TRUE(kernel.windows.empty());
  EXPECT_EQ(pager->stop_recording(kId), (std::vector<Range>{{0, 8 * kChunk}}));
  for (std::uint64_t chunk = 8; chunk < 16; ++chunk) miss(chunk);
  EXPECT_FALSE(kernel.windows.empty());
}

TEST(TouchLogTest, IsBoundedAndEndsWithTheRegion) {
  TouchLog log((TouchLog::kMost + 1) * 4096 - 100, 4096);
  for (std::uint64_t i = TouchLog::kMost + 1; i-- > 0;) log.touched(i * 4096);
  EXPECT_EQ(log.chunks(), TouchLog::kMost);
  EXPECT_EQ(log.ranges().front(), (Range{TouchLog::kMost * 4096, 3996}));
}

TEST_F(PullerTest, DemandGoesFirst) {
  pager->pull(kId, {{0, kSize}});
  for (std::uint64_t i = 0; i < 32; ++i) fetch(1 + i, i, RMEM_REQ_PREFETCH, 0);
  fetch(1000, 200);
  pager->pump();
  EXPECT_EQ(store.operations.front().offset, 200 * kChunk);
}

}  // namespace
}  // namespace rmem::pager
