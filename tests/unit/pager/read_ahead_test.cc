// SPDX-License-Identifier: MIT
#include "pager/read_ahead.hh"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <utility>

#include "fakes.hh"

namespace rmem::pager {
namespace {

constexpr std::uint64_t kChunk = 256 << 10;
constexpr std::uint64_t kSize = 256 * kChunk;

TEST(ReadAhead, RandomReaderFetchesNothingAhead) {
  std::mt19937 random(1);
  ReadAhead policy(kSize * 1024, kChunk);
  for (int i = 0; i < 10000; ++i) {
    const std::uint64_t chunk = random() % (256 * 1024);
    EXPECT_TRUE(policy.on_miss(chunk * kChunk, 1).empty());
  }
}

// The first window of a reader that begins at chunk `first`.
ReadAhead::Window begin_walk(ReadAhead& policy, std::uint64_t chunk, std::uint64_t first = 8) {
  EXPECT_TRUE(policy.on_miss(first * chunk, 1).empty());
  EXPECT_TRUE(policy.on_miss((first + 1) * chunk, 1).empty());
  return policy.on_miss((first + 2) * chunk, 1);
}

TEST(ReadAhead, TwoNeighboursAreNoStream) {
  ReadAhead policy(kSize, kChunk);
  for (const std::uint64_t chunk : {0, 1, 100, 101})
    EXPECT_TRUE(policy.on_miss(chunk * kChunk, 1).empty());
  const ReadAhead::Window w = begin_walk(policy, kChunk);
  EXPECT_EQ(w.offset, 11 * kChunk);
  EXPECT_EQ(w.length, 4 * kChunk);
}

TEST(ReadAhead, FarAwayTheyAreAndTheFirstWindowIsALongOne) {
  ReadAhead policy(kSize * 1024, kChunk);
  policy.set_far(true);
  EXPECT_TRUE(policy.on_miss(8 * kChunk, 1).empty());
  const ReadAhead::Window w = policy.on_miss(9 * kChunk, 1);
  EXPECT_EQ(w.offset, 10 * kChunk);
  EXPECT_EQ(w.length, ReadAhead::kFirstFar);
  ASSERT_TRUE(policy.take_mark(w.offset));
  policy.on_late(w.offset);
  EXPECT_EQ(policy.on_hit(w.offset).length, ReadAhead::kMaxWindow);
}

TEST(ReadAhead, FarAwayWhoBeginsAtTheStartGoesOn) {
  ReadAhead policy(kSize * 1024, kChunk);
  policy.set_far(true);
  const ReadAhead::Window w = policy.on_miss(100, 1);
  EXPECT_EQ(w.offset, kChunk);
  EXPECT_EQ(w.length, ReadAhead::kEnough);
  ASSERT_TRUE(policy.take_mark(w.offset));
  policy.on_late(w.offset);
  EXPECT_EQ(policy.on_hit(w.offset).length, ReadAhead::kMaxWindow);
  // A jump from there is one like any other.
  EXPECT_TRUE(policy.on_miss(500 * kChunk, 2).empty());
}

TEST(ReadAhead, TheFirstWindowIsNotHuge) {
  for (const auto& [chunk, length] : {std::pair<std::uint64_t, std::uint64_t>{4 << 10, 16 << 10},
                                      {64 << 10, 256 << 10},
                                      {1 << 20, 2 << 20},
                                      {2 << 20, 4 << 20}}) {
    ReadAhead policy(64 << 20, chunk);
    EXPECT_EQ(begin_walk(policy, chunk).length, length);
  }
}

// Its reader reaches each window; `late`: and has to wait for it.
std::uint64_t walk_on(ReadAhead& policy, ReadAhead::Window& w, bool late) {
  EXPECT_TRUE(policy.take_mark(w.offset));
  EXPECT_FALSE(policy.take_mark(w.offset + kChunk));  // one mark a window
  if (late) policy.on_late(w.offset);
  const ReadAhead::Window next = policy.on_hit(w.offset);
  EXPECT_EQ(next.offset, w.offset + w.length);
  w = next;
  return w.length;
}

TEST(ReadAhead, WindowsGrowAsFarAsTheirReaderWaits) {
  ReadAhead policy(kSize * 1024, kChunk);
  ReadAhead::Window w = begin_walk(policy, kChunk);
  EXPECT_EQ(walk_on(policy, w, false), 16 * kChunk);
  EXPECT_EQ(walk_on(policy, w, false), ReadAhead::kEnough);
  EXPECT_EQ(walk_on(policy, w, true), 2 * ReadAhead::kEnough);
  EXPECT_EQ(walk_on(policy, w, false), 2 * ReadAhead::kEnough);
  EXPECT_EQ(walk_on(policy, w, true), ReadAhead::kMaxWindow);
  EXPECT_EQ(walk_on(policy, w, true), ReadAhead::kMaxWindow);
}

TEST(ReadAhead, KeepsToTheLongestWindow) {
  ReadAhead policy(kSize * 1024, kChunk, 4 * kChunk);
  ReadAhead::Window w = begin_walk(policy, kChunk);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(walk_on(policy, w, true), 4 * kChunk);
  // Two chunks at least: one to be used, one on its way.
  ReadAhead small(kSize, kChunk, 1);
  EXPECT_EQ(begin_walk(small, kChunk).length, 2 * kChunk);
}

TEST(ReadAhead, StopsAtTheEnd) {
  ReadAhead policy(8 * kChunk + 10, kChunk);
  ReadAhead::Window w = begin_walk(policy, kChunk, 1);
  EXPECT_EQ(w.length, 4 * kChunk);
  ASSERT_TRUE(policy.take_mark(w.offset));
  w = policy.on_hit(w.offset);
  EXPECT_EQ(w.offset, 8 * kChunk);
  EXPECT_EQ(w.length, 10u);
  ASSERT_TRUE(policy.take_mark(w.offset));
  EXPECT_TRUE(policy.on_hit(w.offset).empty());
}

TEST(ReadAhead, ReaderThatMissedTheMarkGoesOn) {
  ReadAhead policy(kSize, kChunk);
  const ReadAhead::Window w = begin_walk(policy, kChunk);
  const ReadAhead::Window next = policy.on_miss(w.offset + w.length, 1);
  EXPECT_EQ(next.offset, w.offset + w.length + kChunk);
  EXPECT_EQ(next.length, 16 * kChunk);
}

TEST(ReadAhead, ChunksThatWereEvictedBeforeUseShrinkTheWindow) {
  ReadAhead policy(kSize, kChunk);
  ReadAhead::Window w = begin_walk(policy, kChunk);
  policy.take_mark(w.offset);
  w = policy.on_hit(w.offset);
  policy.take_mark(w.offset);
  EXPECT_TRUE(policy.on_miss(w.offset, 1).empty());
  EXPECT_TRUE(policy.on_miss(w.offset + kChunk, 1).empty());
  EXPECT_EQ(policy.on_miss(w.offset + 2 * kChunk, 1).length, 4 * kChunk);
}

TEST(ReadAhead, ReaderThatRanPastItsWindowKeepsIt) {
  ReadAhead policy(kSize, kChunk);
  ReadAhead::Window w = begin_walk(policy, kChunk);
  policy.take_mark(w.offset);
  // Both lay in the ring: it entered the window, and it missed behind it.
  w = policy.on_hit(w.offset);
  EXPECT_EQ(w.length, 16 * kChunk);
  EXPECT_TRUE(policy.on_miss(w.offset, 1).empty());
  // The second chunk of the window is the first that was fetched ahead.
  EXPECT_TRUE(policy.take_mark(w.offset + kChunk));
  EXPECT_EQ(policy.on_hit(w.offset + kChunk).length, ReadAhead::kEnough);
}

TEST(ReadAhead, RandomReadersDoNotDriveOutASequentialOne) {
  ReadAhead policy(kSize * 1024, kChunk);
  const ReadAhead::Window w = begin_walk(policy, kChunk);
  policy.take_mark(w.offset);
  std::mt19937 random(2);
  for (int i = 0; i < 1000; ++i) policy.on_miss((1000 + random() % 100000) * kChunk, 2 + i % 50);
  EXPECT_FALSE(policy.on_hit(w.offset).empty());
}

// A reader against the whole pager, with a kernel that keeps a page cache.
class Reader : public PagerTest {
 protected:
  // Reads the chunk; returns false if it had to wait for it. `late`: it came to
  // wait for a prefetch, which was over when the daemon saw that.
  bool read_chunk(std::uint64_t chunk, std::uint32_t tid = 1, bool late = false) {
    store.immediate = true;
    const bool resident = resident_.count(chunk) != 0;
    if (!resident) {
      fetch(chunk, chunk, 0, tid);
    } else if (late) {
      fetch(chunk, chunk, RMEM_REQ_JOINED, tid);
    }
    pager->pump();
    settle();
    if (marked_.erase(chunk)) {
      hit(chunk * kChunk + 100, tid);
      settle();
    }
    return resident;
  }
  // What the kernel would do about prefetches and fills.
  void settle() {
    bool more = true;
    while (more) {
      more = false;
      for (; seen_windows_ < kernel.windows.size(); ++seen_windows_) {
        const auto w = kernel.windows[seen_windows_];
        for (std::uint64_t at = w.offset; at < w.offset + w.length; at += kChunk) {
          if (!resident_.count(at / kChunk)) fetch(at / kChunk, at / kChunk, RMEM_REQ_PREFETCH, 0);
        }
        more = true;
      }
      pager->pump();
      for (; seen_fills_ < kernel.fills.size(); ++seen_fills_) {
        const auto& f = kernel.fills[seen_fills_];
        resident_.insert(f.cookie);
        if (f.flags & RMEM_FILL_MARK) marked_.insert(f.cookie);
        more = true;
      }
    }
  }

  // As a drop.
  void forget_all() {
    resident_.clear();
    marked_.clear();
  }

  std::set<std::uint64_t> resident_;
  std::set<std::uint64_t> marked_;
  std::size_t seen_windows_ = 0;
  std::size_t seen_fills_ = 0;
};

TEST_F(Reader, SequentialWaitsThreeTimesOnly) {
  int waited = 0;
  for (std::uint64_t i = 0; i < kSize / kChunk; ++i) waited += !read_chunk(i);
  EXPECT_EQ(waited, 3);
  EXPECT_EQ(store.reads, kSize / kChunk);  // each chunk once
}

TEST_F(Reader, WhoJoinsLateWalksOn) {
  int waited = 0;
  for (std::uint64_t i = 0; i < kSize / kChunk; ++i) waited += !read_chunk(i, 1, true);
  EXPECT_EQ(waited, 3);
  EXPECT_EQ(store.reads, kSize / kChunk);
}

TEST_F(Reader, InterleavedSequentialReadersEach) {
  int waited = 0;
  for (std::uint64_t i = 0; i < 60; ++i) {
    for (std::uint32_t t = 0; t < 4; ++t) waited += !read_chunk(t * 64 + i, 100 + t);
  }
  EXPECT_EQ(waited, 4 * 3);
}

TEST_F(Reader, OneThreadInTwoPlaces) {
  int waited = 0;
  for (std::uint64_t i = 0; i < 60; ++i) {
    waited += !read_chunk(i, 1);
    waited += !read_chunk(128 + i, 1);
  }
  EXPECT_EQ(waited, 2 * 3);
}

TEST_F(Reader, StridedWaitsFourTimesOnlyAndFetchesNothingElse) {
  for (const std::uint64_t stride : {2, 3, 7}) {
    std::uint64_t waited = 0, touched = 0;
    const std::uint64_t before = store.reads;
    for (std::uint64_t i = stride; i < kSize / kChunk; i += stride, ++touched)
      waited += !read_chunk(i, static_cast<std::uint32_t>(stride));
    EXPECT_EQ(waited, 4u) << stride;
    EXPECT_EQ(store.reads - before, touched) << stride;
    forget_all();
  }
}

TEST_F(Reader, BackwardsToo) {
  int waited = 0;
  for (std::uint64_t i = kSize / kChunk; i-- > 0;) waited += !read_chunk(i);
  EXPECT_EQ(waited, 4);
  EXPECT_EQ(store.reads, kSize / kChunk);
}

TEST_F(Reader, StridedThreadsEach) {
  int waited = 0;
  for (std::uint64_t i = 0; i < 30; ++i) {
    waited += !read_chunk(2 * i, 100);
    waited += !read_chunk(100 + 3 * i, 101);
    waited += !read_chunk(200 + i, 102);
  }
  EXPECT_EQ(waited, 4 + 4 + 3);
}

TEST_F(Reader, TwoStridesOfOneThreadInTurn) {
  int waited = 0;
  for (std::uint64_t i = 0; i < 40; ++i) {
    waited += !read_chunk(2 * i);
    waited += !read_chunk(100 + 3 * i);
  }
  EXPECT_EQ(waited, 2 * 4);
  for (const std::uint64_t chunk : resident_)
    EXPECT_TRUE(chunk % 2 == 0 || chunk % 3 == 1) << chunk;
}

TEST_F(Reader, ThreeStridesOfOneThreadInTurn) {
  int waited = 0;
  for (std::uint64_t i = 0; i < 20; ++i) {
    waited += !read_chunk(6 * i);
    waited += !read_chunk(145 - 6 * i);
    waited += !read_chunk(140 + 6 * i);
  }
  EXPECT_EQ(waited, 3 * 4);
  for (const std::uint64_t chunk : resident_)
    EXPECT_TRUE(chunk % 6 == 0 || chunk % 6 == 1 || chunk % 6 == 2) << chunk;
}

// Columns of a table, row by row.
TEST_F(Reader, ALadderOfThreeSteps) {
  int waited = 0;
  std::uint64_t touched = 0;
  for (std::uint64_t row = 0; row < 16; ++row)
    for (const std::uint64_t column : {0, 4, 9}) {
      waited += !read_chunk(16 * row + column);
      ++touched;
    }
  EXPECT_EQ(waited, 3 * 4);
  EXPECT_EQ(store.reads, touched);
}

// By chance so many misses are seldom equally far.
TEST(ReadAhead, RandomReadersOfASmallRegionFetchLittleAhead) {
  std::mt19937 random(7);
  ReadAhead policy(kSize, kChunk);
  std::uint64_t ahead = 0;
  constexpr int kMisses = 20'000;
  for (int i = 0; i < kMisses; ++i) {
    const ReadAhead::Window w = policy.on_miss(random() % (kSize / kChunk) * kChunk, 1);
    ahead += w.length / kChunk * w.pieces;
  }
  EXPECT_LE(ahead, kMisses / 50u);
}

TEST_F(Reader, ThreeEquallyFarAreNoStride) {
  for (const std::uint64_t chunk : {10, 20, 30, 99, 40, 42, 45, 49}) read_chunk(chunk);
  EXPECT_EQ(store.reads, 8u);
}

TEST(ReadAhead, StridesEndAtTheEdges) {
  ReadAhead policy(100 * kChunk + 10, kChunk);
  ReadAhead::Window w;
  for (const std::uint64_t chunk : {80, 85, 90, 95}) w = policy.on_miss(chunk * kChunk, 1);
  EXPECT_EQ(w.offset, 100 * kChunk);
  EXPECT_EQ(w.pieces, 1u);
  ASSERT_TRUE(policy.take_mark(w.offset));
  EXPECT_TRUE(policy.on_hit(w.offset).empty());
  for (const std::uint64_t chunk : {20, 15, 10, 5}) w = policy.on_miss(chunk * kChunk, 2);
  EXPECT_EQ(w.offset, 0u);
  EXPECT_EQ(w.pieces, 1u);
  ASSERT_TRUE(policy.take_mark(w.offset));
  EXPECT_TRUE(policy.on_hit(w.offset).empty());
}

// Each is a call of the kernel.
TEST(ReadAhead, StridedWindowsHaveSoManyPieces) {
  constexpr std::uint64_t kSmall = 4096;
  ReadAhead policy(std::uint64_t{1} << 40, kSmall);
  ReadAhead::Window w;
  for (const std::uint64_t chunk : {0, 8, 16, 24}) w = policy.on_miss(chunk * kSmall, 1);
  EXPECT_EQ(w.pieces, 4u);
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(policy.take_mark(w.offset));
    w = policy.on_hit(w.offset);
    EXPECT_EQ(w.step, 8 * kSmall);
    EXPECT_EQ(w.length, kSmall);
  }
  EXPECT_EQ(w.pieces, ReadAhead::kMostPieces);
}

TEST_F(Reader, IndexedQueryFetchesOnlyWhatItTouches) {
  for (std::uint64_t chunk : {0, 1, 17, 200, 3, 120, 121, 0, 17}) read_chunk(chunk);
  EXPECT_EQ(store.reads, 7u);
}

TEST_F(Reader, GivesUpWhereTheKernelRefuses) {
  kernel.prefetch_error = ECANCELED;
  for (std::uint64_t i = 0; i < 10; ++i) EXPECT_FALSE(read_chunk(i));
  EXPECT_EQ(store.reads, 10u);
}

TEST_F(Reader, ResidentWindowsAreSkipped) {
  kernel.prefetch_queues = false;
  for (std::uint64_t i = 0; i < 3; ++i) read_chunk(i);
  EXPECT_EQ(kernel.windows.size(), 4u);
  EXPECT_LT(kernel.windows[0].offset, kernel.windows[3].offset);
}

}  // namespace
}  // namespace rmem::pager
