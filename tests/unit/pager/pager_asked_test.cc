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
    EXPECT_TRUE(store.asker->begin({.number = kLane, .socket = 9}));
    pager->set_drain([this] {
      ++drains;
      while (!ring.empty()) {
        pager->accept(ring.front());
        ring.pop_front();
      }
    });
  }

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
  store.asker->pause();
  EXPECT_TRUE(store.asker->begin({.number = kLane, .socket = 9}));
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

// It may be older than the bytes that may leave the page cache from now on.
TEST_F(PagerAsked, WhatWasAskedBeforeAWriteWasDurableIsReadAgain) {
  for (const bool known : {false, true}) {
    const std::uint64_t cookie = known ? 200 : 100;
    write(1);  // the page at 4096, in chunk 0
    pager->pump();
    store.answer(Kind::kWrite);
    pager->pump();
    asks(cookie, 0);
    asks(cookie + 1, 1);
    if (known) pager->drain();
    kernel.completions.clear();
    store.answer(Kind::kFlush);
    ASSERT_EQ(kernel.completed_with(1), 0);
    // All that was in the ring then.
    EXPECT_TRUE(ring.empty());
    asks(cookie + 2, 0);
    EXPECT_TRUE(answer(cookie, 0));
    EXPECT_FALSE(kernel.filled(cookie));
    EXPECT_TRUE(answer(cookie + 1, 1));
    EXPECT_TRUE(kernel.filled(cookie + 1));
    EXPECT_TRUE(answer(cookie + 2, 0));
    EXPECT_TRUE(kernel.filled(cookie + 2));
    store.answer(Kind::kRead);
    EXPECT_TRUE(kernel.filled(cookie));
    EXPECT_EQ(pager->requests_in_use(), 0u);
  }
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
