// SPDX-License-Identifier: MIT
// Fetches that the tasks who wait ask for by themselves.
#include "fakes.hh"

namespace rmem::pager {
namespace {

class PagerAsked : public PagerTest {
 protected:
  static constexpr std::uint32_t kLane = 5;
  const std::vector<std::byte> bytes = std::vector<std::byte>(kChunk, std::byte{0x22});

  void SetUp() override {
    PagerTest::SetUp();
    ASSERT_NE(store.asker, nullptr);
    EXPECT_EQ(begin(), store::Asker::Begun::kAsks);
    pager->set_drain([this] {
      ++drains;
      while (!ring.empty() && drains_all) {
        pager->accept(ring.front());
        ring.pop_front();
      }
      return ring.empty();
    });
  }

  // `answers`: it may take them.
  store::Asker::Begun begin(bool answers = false) {
    store::Asker::Lane lane;
    lane.number = kLane;
    lane.socket = 9;
    if (answers) lane.answer.header = lane.answer.mask = bytes;
    return store.asker->begin(lane);
  }
  store::Asker::Started pause() { return store.asker->pause(header); }

  // Is in the ring.
  void asks(std::uint64_t cookie, std::uint64_t chunk, std::uint32_t lane = kLane) {
    rmem_request e = entry(cookie, RMEM_OP_FETCH, chunk * kChunk, kChunk);
    e.tid = static_cast<__u32>(cookie);
    e.lane = lane;
    ring.push_back(e);
  }
  // The answer comes. False: it was to nothing.
  bool answer(std::uint64_t cookie, std::uint64_t chunk, int err = 0) {
    const auto ctx = store.asker->awaited(cookie, chunk * kChunk, err == 0 ? kChunk : 0);
    EXPECT_TRUE(ctx);
    if (!*ctx) return false;
    store.asker->answered(*ctx, {err, 1}, err == 0 ? bytes : std::span<const std::byte>());
    return true;
  }

  std::deque<rmem_request> ring;
  int drains = 0;
  bool drains_all = true;
  std::array<std::byte, 64> header{};
};

TEST_F(PagerAsked, AnswerFindsItsRequestInTheRing) {
  asks(100, 3);
  asks(101, 9);
  EXPECT_TRUE(answer(101, 9));
  EXPECT_TRUE(answer(100, 3));
  ASSERT_EQ(kernel.fills.size(), 2u);
  EXPECT_EQ(kernel.fills[0].cookie, 101u);
  EXPECT_EQ(kernel.fills[0].first, std::byte{0x22});
  EXPECT_EQ(kernel.fills[1].cookie, 100u);
  EXPECT_EQ(store.reads, 0u);
  EXPECT_EQ(drains, 1);
  EXPECT_EQ(pager->stats(kId).asked, 2u);
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

TEST_F(PagerAsked, AnswerToNothingIsNobodys) {
  asks(100, 3);
  EXPECT_FALSE(answer(99, 3));
  EXPECT_TRUE(answer(100, 3));
  EXPECT_FALSE(answer(100, 3));
  EXPECT_EQ(kernel.fills.size(), 1u);
}

TEST_F(PagerAsked, AnswerOfAnotherRangeIsNone) {
  asks(100, 3);
  EXPECT_FALSE(store.asker->awaited(100, 4 * kChunk, kChunk));
  EXPECT_FALSE(store.asker->awaited(100, 3 * kChunk, kChunk - 1));
  EXPECT_TRUE(answer(100, 3));
}

// It is drained when the lane is another one, or none, or was never meant.
TEST_F(PagerAsked, WhatWasAskedElsewhereIsAskedAgain) {
  asks(100, 3, kLane - 1);
  asks(101, 4);
  store.asker->lost(kLane);
  pager->drain();
  pager->pump();
  EXPECT_EQ(store.reads, 2u);
  store.answer_all(Kind::kRead);
  EXPECT_TRUE(kernel.filled(100));
  EXPECT_TRUE(kernel.filled(101));
}

TEST_F(PagerAsked, WhatALostLaneHadIsAskedAgain) {
  for (std::uint64_t i = 0; i < 100; ++i) asks(100 + i, i);
  pager->drain();
  pager->pump();
  EXPECT_EQ(store.reads, 0u);
  woken = Clock::time_point::max();
  store.asker->lost(kLane);
  EXPECT_LE(woken, now());
  pager->tick();
  store.answer_all(Kind::kRead);
  EXPECT_EQ(store.reads, 100u);
  EXPECT_EQ(kernel.fills.size(), 100u);
  EXPECT_FALSE(answer(100, 0));
}

// A pause is no loss.
TEST_F(PagerAsked, WhatWasAskedBeforeAPauseIsAwaited) {
  asks(100, 3);
  pause();
  EXPECT_EQ(begin(), store::Asker::Begun::kAsks);
  EXPECT_EQ(kernel.lanes, (std::vector<std::uint32_t>{kLane, 0, kLane}));
  EXPECT_TRUE(answer(100, 3));
}

TEST_F(PagerAsked, WhoCouldNotAskAfterAllHasItAsked) {
  asks(100, 3);
  pager->drain();
  fetch(100, 3, RMEM_REQ_AGAIN);
  pager->pump();
  EXPECT_EQ(store.reads, 1u);
  EXPECT_EQ(pager->requests_in_use(), 1u);
  store.answer(Kind::kRead);
  EXPECT_EQ(kernel.fills.size(), 1u);
}

TEST_F(PagerAsked, WithoutMemoryTheBytesAreReadIntoABufferThatKeepsThem) {
  asks(100, 3);
  kernel.fill_errors = {ENOMEM, ENOMEM};
  EXPECT_TRUE(answer(100, 3));
  store.answer(Kind::kRead);
  EXPECT_TRUE(kernel.fills.empty());
  pass(Region::kPauseOnNoMemory);
  EXPECT_TRUE(kernel.filled(100));
  EXPECT_EQ(store.reads, 1u);
}

TEST_F(PagerAsked, ErrorsAreTold) {
  asks(100, 3);
  EXPECT_TRUE(answer(100, 3, EIO));
  EXPECT_EQ(kernel.completed_with(100), EIO);
  asks(101, 4);
  EXPECT_TRUE(answer(101, 4, ESTALE));
  EXPECT_EQ(kernel.completed_with(101), -1);
  pager->fail(kId, "taken over");
  EXPECT_EQ(store.asker, nullptr);
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

TEST_F(PagerAsked, AskedFetchesAreStepsOfTheirReaders) {
  for (std::uint64_t i = 0; i < 4; ++i) {
    rmem_request e = entry(100 + i, RMEM_OP_FETCH, i * kChunk, kChunk);
    e.tid = 1;
    e.lane = kLane;
    ring.push_back(e);
    EXPECT_TRUE(answer(100 + i, i));
  }
  EXPECT_FALSE(kernel.windows.empty());
}

// --- who take the answers, too ---------------------------------------------------

TEST_F(PagerAsked, AnswersAreLeftToThoseWhoAsked) {
  pause();
  asks(100, 3);
  pager->drain();
  asks(101, 4);
  EXPECT_EQ(begin(true), store::Asker::Begun::kTakes);
  // What is outstanding is nobody's here, nor is what comes later.
  EXPECT_TRUE(ring.empty());
  EXPECT_EQ(pager->requests_in_use(), 0u);
  EXPECT_FALSE(answer(100, 3));

  // In the end the kernel says what is outstanding.
  kernel.lane_end = {10, 4711, true};
  const auto started = pause();
  EXPECT_EQ(started.header, 10u);
  EXPECT_EQ(started.payload, 4711u);
  EXPECT_TRUE(started.damaged);
  EXPECT_EQ(header[9], std::byte{0x33});
  asks(101, 4);
  EXPECT_TRUE(answer(101, 4));
  EXPECT_TRUE(kernel.filled(101));
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

// Else it would be awaited here for ever, once it is taken from the ring.
TEST_F(PagerAsked, AnswersAreLeftOnlyWhenTheRingIsEmpty) {
  pause();
  asks(100, 3);
  drains_all = false;
  EXPECT_EQ(begin(true), store::Asker::Begun::kAsks);
  EXPECT_FALSE(kernel.takes_offered);
  drains_all = true;
  EXPECT_TRUE(answer(100, 3));
}

TEST_F(PagerAsked, KernelMayNotWantToTakeAnswers) {
  pause();
  asks(100, 3);
  kernel.can_take = false;
  EXPECT_EQ(begin(true), store::Asker::Begun::kAsks);
  EXPECT_TRUE(kernel.takes_offered);
  EXPECT_TRUE(answer(100, 3));
  pause();
  kernel.lane_error = EINVAL;
  EXPECT_EQ(begin(true), store::Asker::Begun::kNo);
}

TEST_F(PagerAsked, KernelGivesTheAnswersBack) {
  rmem_request e = entry(0, RMEM_OP_LANE, 0, 0);
  e.lane = kLane;
  pager->accept(e);
  EXPECT_EQ(store.answers_of, std::vector<std::uint32_t>{kLane});
  pager->disconnect(kId, "gone");
  pager->accept(e);
  EXPECT_EQ(store.answers_of.size(), 1u);
}

TEST_F(PagerAsked, MissesAreStepsOfTheirReaders) {
  for (std::uint64_t i = 0; i < 4; ++i) {
    rmem_request e = entry(0, RMEM_OP_MISS, i * kChunk, kChunk);
    e.tid = 1;
    pager->accept(e);
  }
  EXPECT_FALSE(kernel.windows.empty());
  EXPECT_EQ(pager->stats(kId).asked, 4u);
  EXPECT_EQ(pager->requests_in_use(), 0u);
  EXPECT_EQ(pager->stats(kId).malformed, 0u);
  rmem_request wrong = entry(0, RMEM_OP_MISS, 0, kChunk);
  wrong.demand_offset = kSize;
  pager->accept(wrong);
  EXPECT_EQ(pager->stats(kId).malformed, 1u);
}

TEST_F(PagerAsked, LendsOnlyWhileTheStoreIsThere) {
  asks(100, 3);
  pager->disconnect(kId, "gone");
  EXPECT_EQ(store.asker, nullptr);
  pager->connect(kId, store);
  EXPECT_NE(store.asker, nullptr);
  bool quiet = false;
  pager->remove(kId, [&] { quiet = true; });
  EXPECT_EQ(store.asker, nullptr);
  pager->tick();
  EXPECT_TRUE(quiet);
}

TEST_F(PagerAsked, ModulesThatCannotAreNotAsked) {
  kernel.can_ask = false;
  store.asker = nullptr;
  start({});
  EXPECT_EQ(store.asker, nullptr);
}

}  // namespace
}  // namespace rmem::pager
