// SPDX-License-Identifier: MIT
#include "fakes.hh"

namespace rmem::pager {
namespace {

class PagerFetch : public PagerTest {};

TEST_F(PagerFetch, ReadsAndFills) {
  fetch(100, 3);
  pager->pump();
  ASSERT_EQ(store.operations.size(), 1u);
  EXPECT_EQ(store.operations[0].offset, 3 * kChunk);
  EXPECT_EQ(store.operations[0].length, kChunk);
  store.answer(Kind::kRead);
  ASSERT_EQ(kernel.fills.size(), 1u);
  EXPECT_EQ(kernel.fills[0].cookie, 100u);
  EXPECT_EQ(kernel.fills[0].length, kChunk);
  EXPECT_EQ(kernel.fills[0].flags, 0u);
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

TEST_F(PagerFetch, DemandGoesBeforePrefetch) {
  for (std::uint64_t i = 0; i < 8; ++i) fetch(10 + i, i, RMEM_REQ_PREFETCH);
  fetch(100, 200);
  pager->pump();
  EXPECT_EQ(store.operations.front().offset, 200 * kChunk);
  EXPECT_EQ(store.count(Kind::kRead), 9u);
}

TEST_F(PagerFetch, WhoJoinsAPrefetchGoesBeforeTheOthers) {
  for (std::uint64_t i = 0; i < 100; ++i) fetch(10 + i, i, RMEM_REQ_PREFETCH);
  pager->pump();
  fetch(109, 99, RMEM_REQ_JOINED);
  pager->pump();
  EXPECT_EQ(store.operations.back().offset, 99 * kChunk);
  store.answer_all(Kind::kRead);
  EXPECT_EQ(kernel.fills.size(), 100u);
  EXPECT_EQ(store.reads, 100u);
}

// The store is told who waits, so that it can let them go first: also for what
// somebody has joined before it was asked for.
TEST_F(PagerFetch, DemandIsAskedForAsSuch) {
  using store::Urgency;
  for (const bool receivable : {false, true}) {
    store.receivable = receivable;
    kernel.can_receive = receivable;
    for (std::uint64_t i = 0; i < 60; ++i) fetch(10 + i, i, RMEM_REQ_PREFETCH);
    fetch(100, 200);
    pager->pump();
    fetch(69, 59, RMEM_REQ_JOINED);
    pager->pump();
    for (const auto& o : store.operations) {
      const bool waited_for = o.offset == 200 * kChunk || o.offset == 59 * kChunk;
      EXPECT_EQ(o.urgency, waited_for ? Urgency::kDemand : Urgency::kBulk) << o.offset / kChunk;
    }
    EXPECT_EQ(store.count(Kind::kRead), 50u);
    store.answer_all(Kind::kRead);
  }
}

// Who joins far back is asked for a second time, once; whichever comes first fills, and
// the other is thrown away: the kernel may want the chunk once more by then, under the
// same cookie, since something has been written.
class PagerTwice : public PagerFetch {
 protected:
  void SetUp() override {
    PagerFetch::SetUp();
    store.has_page_lane = true;
    for (std::uint64_t i = 0; i < 12; ++i) fetch(10 + i, i, RMEM_REQ_PREFETCH);
    pager->pump();
  }
  void join(std::uint64_t chunk) {
    fetch(10 + chunk, chunk, RMEM_REQ_JOINED);
    pager->pump();
  }
  void answer_last() {
    std::rotate(store.operations.begin(), store.operations.end() - 1, store.operations.end());
    store.answer(Kind::kRead);
  }
  std::size_t fills_of(std::uint64_t cookie) const {
    return static_cast<std::size_t>(
        std::count_if(kernel.fills.begin(), kernel.fills.end(),
                      [&](const auto& f) { return f.cookie == cookie; }));
  }
};

TEST_F(PagerTwice, NearTheFrontNobodyIs) {
  join(3);
  EXPECT_EQ(store.reads, 12u);
}

TEST_F(PagerTwice, WithoutAPageLaneNobodyIs) {
  store.has_page_lane = false;
  join(9);
  EXPECT_EQ(store.reads, 12u);
}

TEST_F(PagerTwice, TheDemandComesFirst) {
  join(9);
  join(9);
  ASSERT_EQ(store.reads, 13u);
  EXPECT_EQ(store.operations.back().offset, 9 * kChunk);
  EXPECT_EQ(store.operations.back().urgency, store::Urgency::kDemand);
  answer_last();
  EXPECT_EQ(fills_of(19), 1u);
  // As after a write that has overtaken it.
  fetch(19, 9, RMEM_REQ_AGAIN);
  pager->pump();
  store.answer_all(Kind::kRead);
  EXPECT_EQ(fills_of(19), 2u);
  EXPECT_EQ(kernel.fills.size(), 13u);
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

TEST_F(PagerTwice, TheBulkComesFirst) {
  join(9);
  for (int i = 0; i < 12; ++i) store.answer(Kind::kRead);
  EXPECT_EQ(fills_of(19), 1u);
  store.answer_all(Kind::kRead);
  EXPECT_EQ(fills_of(19), 1u);
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

TEST_F(PagerTwice, WhatFailsLeavesItToTheOther) {
  join(9);
  std::rotate(store.operations.begin(), store.operations.end() - 1, store.operations.end());
  store.answer(Kind::kRead, EIO);
  EXPECT_TRUE(kernel.completions.empty());
  store.answer_all(Kind::kRead);
  EXPECT_EQ(fills_of(19), 1u);
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

TEST_F(PagerTwice, BothFail) {
  join(9);
  store.answer_all(Kind::kRead, EIO);
  EXPECT_EQ(kernel.completed_with(19), EIO);
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

TEST_F(PagerTwice, TheConnectionIsLost) {
  join(9);
  store.answer_everything(EAGAIN);
  pass(std::chrono::milliseconds(100));
  store.answer_all(Kind::kRead);
  EXPECT_EQ(fills_of(19), 1u);
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

// The module has what one of them has brought so far, until the other one begins.
TEST_F(PagerTwice, IntoThePageCacheBothBegin) {
  store.answer_all(Kind::kRead);
  store.receivable = kernel.can_receive = true;
  for (std::uint64_t i = 12; i < 24; ++i) fetch(10 + i, i, RMEM_REQ_PREFETCH);
  pager->pump();
  join(21);
  ASSERT_EQ(store.receives, 13u);
  for (int i = 0; i < 9; ++i) store.answer(Kind::kRead);
  kernel.receive_results = {{0, ESPIPE, 0}};
  store.answer(Kind::kRead);
  EXPECT_EQ(store.last_taken.err, ECANCELED);
  EXPECT_EQ(kernel.completed_with(31), -1);
  store.answer_all(Kind::kRead);
  EXPECT_EQ(kernel.received.back().cookie, 31u);
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

// Far away, where chunks take long: the page that is waited for comes by itself, in front.
class PagerScout : public PagerFetch {
 protected:
  using Urgency = store::Urgency;
  static constexpr std::uint64_t kPiece = 16 << 10;

  void SetUp() override {
    PagerFetch::SetUp();
    store.has_page_lane = kernel.can_fill_early = true;
    store.trip = std::chrono::milliseconds(5);
    take(std::chrono::milliseconds(15));
  }
  // So long did a chunk take that nothing was in the way of.
  void take(std::chrono::milliseconds time) {
    fetch(1, 100, RMEM_REQ_PREFETCH);
    pager->pump();
    pass(time);
    store.answer(Kind::kRead);
    kernel.fills.clear();
    store.reads = 0;
  }
  void demand(std::uint64_t cookie, std::uint64_t chunk, std::uint64_t byte,
              std::uint8_t flags = RMEM_REQ_AGAIN) {
    rmem_request e = entry(cookie, RMEM_OP_FETCH, chunk * kChunk, kChunk);
    e.demand_offset = chunk * kChunk + byte;
    e.flags = flags;
    pager->accept(e);
    pager->pump();
  }
  void answer_last(int err = 0) {
    std::rotate(store.operations.begin(), store.operations.end() - 1, store.operations.end());
    store.answer(Kind::kRead, err);
  }
  // What the store is asked for the chunk, and then for the page.
  const FakeStore::Operation& chunk() const { return store.operations.back(); }
  const FakeStore::Operation& scout() const { return store.operations.front(); }
};

TEST_F(PagerScout, ThePageGoesInFrontAndTheChunkFollows) {
  demand(7, 3, 5 * kPiece + 100);
  ASSERT_EQ(store.reads, 2u);
  EXPECT_EQ(scout().offset, 3 * kChunk + 5 * kPiece);
  EXPECT_EQ(scout().length, kPiece);
  EXPECT_EQ(scout().urgency, Urgency::kDemand);
  EXPECT_EQ(chunk().length, kChunk);
  EXPECT_EQ(chunk().urgency, Urgency::kBulk);
  store.answer(Kind::kRead);
  ASSERT_EQ(kernel.fills.size(), 1u);
  EXPECT_EQ(kernel.fills[0].cookie, 7u);
  EXPECT_EQ(kernel.fills[0].flags, RMEM_FILL_EARLY);
  EXPECT_EQ(kernel.fills[0].length, kPiece);
  EXPECT_EQ(pager->stats(kId).early, 1u);
  store.answer(Kind::kRead);
  EXPECT_EQ(kernel.fills.back().length, kChunk);
  EXPECT_EQ(kernel.fills.back().flags, 0u);
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

TEST_F(PagerScout, NobodyIsSentWhereAChunkIsAsQuickAsAPage) {
  take(std::chrono::milliseconds(6));
  demand(7, 3, 0);
  EXPECT_EQ(store.reads, 1u);
  EXPECT_EQ(chunk().urgency, Urgency::kDemand);
}

// But beside a pull.
TEST_F(PagerScout, SomebodyIsSentWhereTheLinkIsBusy) {
  take(std::chrono::milliseconds(6));
  demand(6, 9, 0, RMEM_REQ_PREFETCH);
  demand(7, 3, 0);
  ASSERT_EQ(store.reads, 3u);
  EXPECT_EQ(store.operations[1].length, kPiece);
}

// Nobody knows how long a chunk takes, but the window of a connection is small at first.
class PagerFirstScout : public PagerScout {
 protected:
  void SetUp() override {
    PagerFetch::SetUp();
    store.has_page_lane = kernel.can_fill_early = true;
    store.trip = std::chrono::milliseconds(5);
  }
};

TEST_F(PagerFirstScout, SomebodyIsSentForTheFirstChunk) {
  demand(7, 3, 0);
  ASSERT_EQ(store.reads, 2u);
  EXPECT_EQ(scout().length, kPiece);
  EXPECT_EQ(chunk().length, kChunk);
}

TEST_F(PagerScout, NobodyIsSentNearby) {
  store.trip = std::chrono::microseconds(1900);
  demand(7, 3, 0);
  EXPECT_EQ(store.reads, 1u);
}

TEST_F(PagerScout, NobodyIsSentForAModuleThatTakesNothingEarly) {
  kernel.can_fill_early = false;
  demand(7, 3, 0);
  EXPECT_EQ(store.reads, 1u);
}

TEST_F(PagerScout, WhoJoinsAPullGetsHisPageFirst) {
  for (std::uint64_t i = 0; i < 10; ++i) demand(10 + i, 20 + i, 0, RMEM_REQ_PREFETCH);
  demand(12, 22, 2 * kPiece, RMEM_REQ_JOINED);
  ASSERT_EQ(store.reads, 11u);
  EXPECT_EQ(store.operations.back().offset, 22 * kChunk + 2 * kPiece);
  answer_last();
  // Another page of it, by another thread or the next step of this.
  demand(12, 22, 3 * kPiece, RMEM_REQ_JOINED);
  ASSERT_EQ(store.reads, 12u);
  EXPECT_EQ(store.operations.back().offset, 22 * kChunk + 3 * kPiece);
  store.answer_all(Kind::kRead);
  EXPECT_EQ(pager->stats(kId).early, 1u) << "the chunk was there before the second page";
  EXPECT_EQ(store.reads, 12u);
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

TEST_F(PagerScout, WhoWaitsForWhatIsAboutToComeNeedsNoScout) {
  for (std::uint64_t i = 0; i < 10; ++i) demand(10 + i, 20 + i, 0, RMEM_REQ_PREFETCH);
  demand(10, 20, 0, RMEM_REQ_JOINED);
  EXPECT_EQ(store.reads, 10u);
}

// The kernel may want the chunk once more by then, since something has been written.
TEST_F(PagerScout, AScoutThatComesAfterItsChunkIsVoid) {
  demand(7, 3, 0);
  answer_last();
  ASSERT_EQ(kernel.fills.size(), 1u);
  demand(7, 3, 0);
  store.answer(Kind::kRead);
  EXPECT_EQ(kernel.fills.size(), 1u);
  store.answer_all(Kind::kRead);
  EXPECT_EQ(kernel.fills.size(), 3u);
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

TEST_F(PagerScout, AScoutWhoseChunkCouldNotBeReadIsVoid) {
  demand(7, 3, 0);
  answer_last(EIO);
  EXPECT_EQ(kernel.completed_with(7), ECANCELED);  // so that it is asked for again
  store.answer(Kind::kRead);
  EXPECT_TRUE(kernel.fills.empty());
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

// It is the chunk then that is waited for, and tells what is wrong.
TEST_F(PagerScout, WhatAScoutCannotHaveIsAskedOfTheChunk) {
  for (const int err : {EIO, ENOMEM}) {
    demand(7, 3, 0);
    if (err == ENOMEM) kernel.fill_errors = {ENOMEM};
    store.answer(Kind::kRead, err == EIO ? EIO : 0);
    EXPECT_TRUE(kernel.completions.empty());
    store.answer(Kind::kRead, EIO);
    EXPECT_EQ(kernel.completed_with(7), EIO);
    EXPECT_EQ(pager->requests_in_use(), 0u);
    kernel.completions.clear();
  }
}

TEST_F(PagerScout, TheConnectionIsLost) {
  demand(7, 3, 0);
  store.answer_everything(EAGAIN);
  pass(std::chrono::milliseconds(100));
  store.answer_all(Kind::kRead);
  EXPECT_EQ(kernel.fills.back().length, kChunk);
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

// What is late on the page lane is asked for on the bulk lane as well.
class PagerHedge : public PagerTest {
 protected:
  static constexpr std::uint64_t kShort = 4096;
  using Urgency = store::Urgency;

  void SetUp() override {
    chunk = kShort;
    store.has_page_lane = true;
    store.trip = std::chrono::milliseconds(25);
    start({.hedge = true});
    earn(20);
  }
  // So many are answered in time.
  void earn(std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) demand(1000 + i, 1000 + i);
    store.answer_all(Kind::kRead);
  }
  void demand(std::uint64_t cookie, std::uint64_t page) {
    rmem_request e = entry(cookie, RMEM_OP_FETCH, page * kShort, kShort);
    e.flags = RMEM_REQ_AGAIN;
    pager->accept(e);
    pager->pump();
  }
  void answer_last(int err = 0) {
    std::rotate(store.operations.begin(), store.operations.end() - 1, store.operations.end());
    store.answer(Kind::kRead, err);
  }
  std::size_t fills_of(std::uint64_t cookie) const {
    return static_cast<std::size_t>(
        std::count_if(kernel.fills.begin(), kernel.fills.end(),
                      [&](const auto& f) { return f.cookie == cookie; }));
  }
};

TEST_F(PagerHedge, WhatIsLateIsAskedForOnTheOtherLaneOnce) {
  const auto begun = fake_now;
  demand(7, 3);
  EXPECT_EQ(woken, begun + std::chrono::milliseconds(75));
  pass(std::chrono::milliseconds(74));
  EXPECT_EQ(store.operations.size(), 1u);
  pass(std::chrono::milliseconds(1));
  ASSERT_EQ(store.operations.size(), 2u);
  EXPECT_EQ(store.operations[0].urgency, Urgency::kDemand);
  EXPECT_EQ(store.operations[1].urgency, Urgency::kBulk);
  EXPECT_EQ(store.operations[1].offset, 3 * kShort);
  EXPECT_EQ(pager->stats(kId).hedged, 1u);
  pass(std::chrono::milliseconds(500));
  EXPECT_EQ(store.operations.size(), 2u);
  answer_last();
  EXPECT_EQ(fills_of(7), 1u);
  // The kernel wants it once more, as after a write; the late one is void.
  demand(7, 3);
  store.answer(Kind::kRead);
  EXPECT_EQ(fills_of(7), 1u);
  store.answer(Kind::kRead);
  EXPECT_EQ(fills_of(7), 2u);
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

TEST_F(PagerHedge, TheFirstMayStillBeFirst) {
  demand(7, 3);
  pass(std::chrono::milliseconds(75));
  ASSERT_EQ(store.operations.size(), 2u);
  store.answer(Kind::kRead);
  store.answer(Kind::kRead);
  EXPECT_EQ(fills_of(7), 1u);
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

TEST_F(PagerHedge, ThePageLaneIsLostMeanwhile) {
  demand(7, 3);
  pass(std::chrono::milliseconds(75));
  answer_last(EIO);
  EXPECT_EQ(kernel.completed_with(7), -1);
  store.answer(Kind::kRead, EAGAIN);
  pass(std::chrono::milliseconds(100));
  store.answer_all(Kind::kRead);
  EXPECT_EQ(fills_of(7), 1u);
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

TEST_F(PagerHedge, OneInTwentyAtMost) {
  for (std::uint64_t i = 0; i < 10; ++i) demand(10 + i, i);
  pass(std::chrono::seconds(1));
  EXPECT_EQ(pager->stats(kId).hedged, 1u);
  EXPECT_GT(woken, fake_now);  // does not wait for it by spinning
  store.answer_all(Kind::kRead);
  earn(400);
  for (std::uint64_t i = 0; i < 100; ++i) demand(10 + i, i);
  pass(std::chrono::seconds(1));
  const Stats stats = pager->stats(kId);
  EXPECT_LE(stats.hedged * 20, stats.fetches);
  EXPECT_GE(stats.hedged * 25, stats.fetches);
  store.answer_all(Kind::kRead);
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

TEST_F(PagerHedge, NearbyItIsThirtyMilliseconds) {
  store.trip = std::chrono::microseconds(50);
  demand(7, 3);
  pass(std::chrono::milliseconds(29));
  EXPECT_EQ(store.operations.size(), 1u);
  pass(std::chrono::milliseconds(1));
  EXPECT_EQ(store.operations.size(), 2u);
}

TEST_F(PagerHedge, NeitherAheadNorWithoutAPageLaneNorWhenOff) {
  rmem_request e = entry(9, RMEM_OP_FETCH, 0, kShort);
  e.flags = RMEM_REQ_PREFETCH;
  pager->accept(e);
  pager->pump();
  pass(std::chrono::seconds(1));
  EXPECT_EQ(store.operations.size(), 1u);
  store.answer(Kind::kRead);

  store.has_page_lane = false;
  demand(7, 3);
  pass(std::chrono::seconds(1));
  EXPECT_EQ(store.operations.size(), 1u);
  store.answer(Kind::kRead);

  store.has_page_lane = true;
  start({});
  earn(40);
  demand(7, 3);
  pass(std::chrono::seconds(1));
  EXPECT_EQ(store.operations.size(), 1u);
}

// rmemd would not know that they are late.
TEST_F(PagerHedge, OverADistanceNobodyAsksByHimself) {
  store::Asker::Lane lane;
  lane.number = 5;
  lane.socket = 9;
  lane.round_trip = std::chrono::milliseconds(25);
  EXPECT_EQ(store.asker->begin(lane), store::Asker::Begun::kNo);
  lane.round_trip = std::chrono::milliseconds(1);
  EXPECT_NE(store.asker->begin(lane), store::Asker::Begun::kNo);
  start({});
  lane.round_trip = std::chrono::milliseconds(25);
  EXPECT_NE(store.asker->begin(lane), store::Asker::Begun::kNo);
}

// Nor that their pages should come first.
TEST_F(PagerScout, OverADistanceNobodyAsksByHimself) {
  store::Asker::Lane lane;
  lane.number = 5;
  lane.socket = 9;
  lane.round_trip = std::chrono::milliseconds(5);
  EXPECT_EQ(store.asker->begin(lane), store::Asker::Begun::kNo);
  kernel.can_fill_early = false;
  EXPECT_NE(store.asker->begin(lane), store::Asker::Begun::kNo);
}

// The entry lay in the ring while the prefetch was filled or given back.
TEST_F(PagerFetch, WhoJoinsAPrefetchTooLateAsksForNothing) {
  fetch(10, 1, RMEM_REQ_PREFETCH);
  pager->pump();
  store.answer(Kind::kRead);
  ASSERT_TRUE(kernel.filled(10));
  fetch(10, 1, RMEM_REQ_JOINED);
  pager->pump();
  EXPECT_EQ(store.reads, 1u);
  EXPECT_EQ(kernel.fills.size(), 1u);
  EXPECT_TRUE(kernel.windows.empty());
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

TEST_F(PagerFetch, PrefetchesLeavePlacesToDemand) {
  for (std::uint64_t i = 0; i < 100; ++i) fetch(10 + i, i, RMEM_REQ_PREFETCH);
  pager->pump();
  const std::size_t ahead = store.count(Kind::kRead);
  EXPECT_LE(ahead, 48u);
  fetch(1000, 200);
  pager->pump();
  EXPECT_EQ(store.count(Kind::kRead), ahead + 1);
  store.answer_all(Kind::kRead);
  EXPECT_EQ(kernel.fills.size(), 101u);
}

TEST_F(PagerFetch, DemandDoesNotStarvePrefetches) {
  for (std::uint64_t i = 0; i < 200; ++i) fetch(1000 + i, i, RMEM_REQ_AGAIN);
  fetch(10, 250, RMEM_REQ_PREFETCH);
  pager->pump();
  EXPECT_TRUE(std::any_of(store.operations.begin(), store.operations.end(),
                          [](const auto& o) { return o.offset == 250 * kChunk; }));
}

TEST_F(PagerFetch, WaitsWhileTheStoreIsAway) {
  pager->disconnect(kId, "rmem://host/x: gone");
  ASSERT_EQ(kernel.states.back().state, RMEM_STATE_DEGRADED);
  EXPECT_EQ(kernel.states.back().reason, "rmem://host/x: gone");
  fetch(100, 1);
  pager->pump();
  EXPECT_TRUE(store.operations.empty());
  pager->connect(kId, store);
  EXPECT_EQ(kernel.states.back().state, RMEM_STATE_ACTIVE);
  store.answer(Kind::kRead);
  EXPECT_TRUE(kernel.filled(100));
}

TEST_F(PagerFetch, LostConnectionIssuesAgain) {
  fetch(100, 1);
  pager->pump();
  pager->disconnect(kId, "gone");
  store.answer_everything(EAGAIN);
  EXPECT_TRUE(kernel.completions.empty());
  EXPECT_TRUE(store.operations.empty());
  pager->connect(kId, store);
  store.answer(Kind::kRead);
  EXPECT_TRUE(kernel.filled(100));
}

// EAGAIN although nobody said that the store is gone: no busy loop, no hang.
TEST_F(PagerFetch, UnexplainedEagainIsRetriedAfterAPause) {
  fetch(100, 1);
  pager->pump();
  store.answer(Kind::kRead, EAGAIN);
  EXPECT_TRUE(store.operations.empty());
  EXPECT_LE(woken, fake_now + std::chrono::milliseconds(100));
  pass(std::chrono::milliseconds(100));
  store.answer(Kind::kRead);
  EXPECT_TRUE(kernel.filled(100));
}

TEST_F(PagerFetch, PrefetchesAreGivenBackWhenTheStoreGoes) {
  fetch(10, 1, RMEM_REQ_PREFETCH);
  pager->disconnect(kId, "gone");
  EXPECT_EQ(kernel.completed_with(10), ECANCELED);
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

TEST_F(PagerFetch, DamagedBytesAreReadAgainButNotForEver) {
  fetch(100, 1);
  pager->pump();
  store.answer(Kind::kRead, EBADMSG);
  store.answer(Kind::kRead, EBADMSG);
  store.answer(Kind::kRead);
  EXPECT_TRUE(kernel.filled(100));
  fetch(101, 2);
  pager->pump();
  for (int i = 0; i < 5; ++i) store.answer(Kind::kRead, EBADMSG);
  EXPECT_EQ(kernel.completed_with(101), EIO);
  EXPECT_EQ(pager->stats(kId).damaged, 7u);
}

TEST_F(PagerFetch, StoreErrorReachesWhoWaits) {
  fetch(100, 1);
  fetch(101, 2, RMEM_REQ_PREFETCH);
  pager->pump();
  store.answer_all(Kind::kRead, EIO);
  EXPECT_EQ(kernel.completed_with(100), EIO);
  // Whoever waits for it by now asks again and is told then.
  EXPECT_EQ(kernel.completed_with(101), ECANCELED);
}

TEST_F(PagerFetch, AnotherStoreFailsTheRegion) {
  fetch(100, 1);
  fetch(101, 2);
  pager->pump();
  store.answer(Kind::kRead, ESTALE);
  pager->fail(kId, "taken over by b");  // by whoever watches the store
  EXPECT_EQ(kernel.states.back().state, RMEM_STATE_FAILED);
  EXPECT_EQ(kernel.states.back().reason, "taken over by b");
  EXPECT_TRUE(pager->failed(kId));
  store.answer(Kind::kRead);  // late, and of no interest
  EXPECT_TRUE(kernel.fills.empty());
  fetch(102, 3);
  pager->pump();
  EXPECT_TRUE(store.operations.empty());
  EXPECT_EQ(pager->requests_in_use(), 0u);
  EXPECT_EQ(pager->buffer_bytes_free(), Pager::Options{}.buffer_bytes);
}

TEST_F(PagerFetch, AnotherStoreFailsTheRegionThoughNobodySaysWhy) {
  fetch(100, 1);
  pager->pump();
  store.answer(Kind::kRead, ESTALE);
  EXPECT_TRUE(store.operations.empty());
  pass(std::chrono::milliseconds(100));
  EXPECT_EQ(kernel.states.back().state, RMEM_STATE_FAILED);
  EXPECT_FALSE(kernel.states.back().reason.empty());
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

TEST_F(PagerFetch, KernelWithoutMemoryIsAskedAgain) {
  kernel.fill_errors = {ENOMEM, ENOMEM, 0};
  fetch(100, 1);
  pager->pump();
  store.answer(Kind::kRead);
  EXPECT_FALSE(kernel.filled(100));
  pass(std::chrono::milliseconds(20));
  pass(std::chrono::milliseconds(20));
  EXPECT_TRUE(kernel.filled(100));
  EXPECT_EQ(store.reads, 1u);
}

TEST_F(PagerFetch, CookieThatIsGoneIsForgotten) {
  kernel.fill_errors = {ENOENT};
  fetch(100, 1);
  pager->pump();
  store.answer(Kind::kRead);
  EXPECT_TRUE(kernel.completions.empty());
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

// --- received by the module ------------------------------------------------------

class PagerReceive : public PagerTest {
 protected:
  void SetUp() override {
    PagerTest::SetUp();
    kernel.can_receive = store.receivable = true;
  }
};

TEST_F(PagerReceive, NeedsNoBufferAndNoFill) {
  const std::size_t free = pager->buffer_bytes_free();
  fetch(100, 1);
  fetch(101, 2, RMEM_REQ_PREFETCH);
  pager->pump();
  EXPECT_EQ(pager->buffer_bytes_free(), free);
  store.answer_all(Kind::kRead);
  ASSERT_EQ(kernel.received.size(), 2u);
  EXPECT_EQ(kernel.received[0].cookie, 100u);
  EXPECT_EQ(kernel.received[0].length, kChunk);
  EXPECT_EQ(kernel.received[1].cookie, 101u);
  EXPECT_TRUE(kernel.fills.empty());
  EXPECT_TRUE(kernel.completions.empty());
  EXPECT_EQ(store.reads, 0u);
  EXPECT_EQ(pager->stats(kId).received, 2u);
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

TEST_F(PagerReceive, OnlyWhereBothSidesCan) {
  kernel.can_receive = false;
  fetch(100, 1);
  pager->pump();
  kernel.can_receive = true;
  store.receivable = false;
  fetch(101, 2);
  pager->pump();
  store.answer_all(Kind::kRead);
  EXPECT_EQ(store.receives, 0u);
  EXPECT_TRUE(kernel.filled(100));
  EXPECT_TRUE(kernel.filled(101));
}

TEST_F(PagerReceive, MarkGoesAlong) {
  for (std::uint64_t i = 0; i < 8 && kernel.windows.empty(); ++i) {
    fetch(100 + i, i);
    pager->pump();
    store.answer_all(Kind::kRead);
  }
  ASSERT_FALSE(kernel.windows.empty());
  const std::uint64_t chunk = kernel.windows.back().offset / kChunk;
  for (std::uint64_t i = 0; i < kernel.windows.back().length / kChunk; ++i)
    fetch(200 + i, chunk + i, RMEM_REQ_PREFETCH);
  pager->pump();
  kernel.received.clear();
  store.answer_all(Kind::kRead);
  EXPECT_EQ(std::count_if(kernel.received.begin(), kernel.received.end(),
                          [](const auto& f) { return f.flags == RMEM_FILL_MARK; }),
            1);
}

TEST_F(PagerReceive, CookieThatIsGoneIsForgotten) {
  kernel.receive_results = {{0, ENOENT, 0}};
  fetch(100, 1);
  pager->pump();
  store.answer(Kind::kRead);
  EXPECT_EQ(store.last_taken.err, ECANCELED);
  EXPECT_TRUE(kernel.completions.empty());
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

// What the module would not have is read again, and filled.
TEST_F(PagerReceive, RefusedFetchGoesByCopy) {
  for (const int err : {ENOMEM, EINVAL, EBUSY}) {
    kernel.fills.clear();
    kernel.receive_results = {{kChunk / 2, err, 0}};
    fetch(100, 1);
    pager->pump();
    store.answer(Kind::kRead);
    EXPECT_FALSE(kernel.filled(100));
    store.answer(Kind::kRead);
    EXPECT_TRUE(kernel.filled(100)) << err;
    EXPECT_EQ(pager->requests_in_use(), 0u);
  }
  // The next one is received again.
  fetch(101, 2);
  pager->pump();
  store.answer(Kind::kRead);
  EXPECT_EQ(kernel.received.back().cookie, 101u);
}

TEST_F(PagerReceive, PrefetchWithoutMemoryIsGivenUp) {
  kernel.receive_results = {{0, ENOMEM, 0}};
  fetch(100, 1, RMEM_REQ_PREFETCH);
  pager->pump();
  store.answer(Kind::kRead);
  EXPECT_EQ(kernel.completed_with(100), ECANCELED);
}

TEST_F(PagerReceive, EndsOfTheConnectionAreToldApart) {
  const struct {
    kchan::KernelChannel::Received result;
    store::Receiver::Taken taken;
  } ends[] = {
      {{10, EAGAIN, 0}, {10, false, EAGAIN}}, {{kChunk, EBADMSG, 0}, {kChunk, false, EBADMSG}},
      {{10, EPIPE, 0}, {10, true, 0}},        {{10, ECONNRESET, ETIMEDOUT}, {10, true, ETIMEDOUT}},
      {{10, ENOMSG, 0}, {10, true, ENOMSG}},
  };
  for (const auto& end : ends) {
    kernel.receive_results = {end.result};
    fetch(100, 1);
    pager->pump();
    store.answer(Kind::kRead);
    EXPECT_EQ(store.last_taken.bytes, end.taken.bytes);
    EXPECT_EQ(store.last_taken.lost, end.taken.lost);
    EXPECT_EQ(store.last_taken.err, end.taken.err);
    // The connection was lost: once more, by whatever comes then.
    pass(std::chrono::milliseconds(100));
    store.answer(Kind::kRead);
    EXPECT_EQ(kernel.received.back().cookie, 100u);
    EXPECT_EQ(pager->requests_in_use(), 0u);
  }
}

TEST_F(PagerReceive, RegionThatIsGoneTakesNothing) {
  bool quiet = false;
  fetch(100, 1);
  pager->pump();
  pager->remove(kId, [&] { quiet = true; });
  store.answer(Kind::kRead);
  EXPECT_EQ(store.last_taken.err, ECANCELED);
  EXPECT_TRUE(kernel.received.empty());
  pager->tick();
  EXPECT_TRUE(quiet);
}

TEST_F(PagerFetch, WriteThatIsNotDurableYetDoesNotDelayAFetch) {
  fetch(100, 0);
  pager->pump();
  write(5);
  pager->pump();
  store.answer(Kind::kWrite);
  store.answer(Kind::kRead);
  EXPECT_TRUE(kernel.filled(100));
}

TEST_F(PagerFetch, SlowRegionDoesNotTakeTheLastBuffer) {
  RegionConfig other;
  other.id = 8;
  other.name = "other";
  other.size = kSize;
  other.chunk = kChunk;
  Pager::Options small;
  small.buffer_bytes = 2 << 20;  // eight chunks
  start(small);
  pager->add(other);
  FakeStore second(kSize);
  pager->connect(8, second);
  for (std::uint64_t i = 0; i < 20; ++i) fetch(100 + i, i);
  pager->pump();
  rmem_request e = entry(500, RMEM_OP_FETCH, 0, kChunk);
  e.region_id = 8;
  pager->accept(e);
  pager->pump();
  second.answer(Kind::kRead);
  EXPECT_TRUE(kernel.filled(500));
  store.answer_all(Kind::kRead);
  EXPECT_EQ(kernel.fills.size(), 21u);
  pager->remove(kId, [] {});
  pager->remove(8, [] {});
}

TEST_F(PagerFetch, LastChunkOfAnOddSize) {
  RegionConfig odd;
  odd.id = 9;
  odd.name = "odd";
  odd.size = kChunk + 100;
  odd.chunk = kChunk;
  pager->add(odd);
  FakeStore second(odd.size);
  pager->connect(9, second);
  rmem_request e = entry(500, RMEM_OP_FETCH, kChunk, 100);
  e.region_id = 9;
  pager->accept(e);
  pager->pump();
  second.answer(Kind::kRead);
  ASSERT_TRUE(kernel.filled(500));
  EXPECT_EQ(kernel.fills.back().length, 100u);
}

TEST_F(PagerFetch, RemoveTellsWhenTheStoreMayGo) {
  bool quiet = false;
  fetch(100, 1);
  pager->pump();
  pager->remove(kId, [&] { quiet = true; });
  pager->tick();
  EXPECT_FALSE(quiet);
  store.answer(Kind::kRead, EAGAIN);
  EXPECT_FALSE(quiet);  // not from within the store's own call
  EXPECT_LE(woken, fake_now);
  pager->tick();
  EXPECT_TRUE(quiet);
  EXPECT_TRUE(kernel.fills.empty());
}

}  // namespace
}  // namespace rmem::pager
