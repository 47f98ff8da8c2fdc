// SPDX-License-Identifier: MIT
#include "fakes.hh"

namespace rmem::pager {
namespace {

class PagerWrite : public PagerTest {};

TEST_F(PagerWrite, OneFlushForAWindow) {
  for (std::uint64_t i = 1; i <= 20; ++i) write(i);
  pager->pump();
  EXPECT_EQ(store.count(Kind::kWrite), 20u);
  for (int i = 0; i < 19; ++i) store.answer(Kind::kWrite);
  EXPECT_EQ(store.flushes, 0u);
  store.answer(Kind::kWrite);
  EXPECT_EQ(store.flushes, 1u);
  EXPECT_TRUE(kernel.completions.empty());  // acknowledged is not durable
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completions.size(), 20u);
  EXPECT_EQ(kernel.complete_calls, 1u);
  EXPECT_EQ(kernel.completed_with(20), 0);
  EXPECT_EQ(store.flushes, 1u);
  EXPECT_TRUE(pager->idle(kId));
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

TEST_F(PagerWrite, OneFlushForAWindowOfAnImmediateStore) {
  store.immediate = true;
  for (std::uint64_t i = 1; i <= 200; ++i) write(i);
  pager->pump();
  EXPECT_EQ(kernel.completions.size(), 200u);
  EXPECT_EQ(store.flushes, 1u);
}

TEST_F(PagerWrite, WhatNobodyWaitsForKeepsToTheRegionsRate) {
  using namespace std::chrono_literals;
  store.immediate = true;
  pager->limit(kId, 0, 10 * 4096);
  for (std::uint64_t i = 1; i <= 40; ++i) write(i);
  pager->pump();
  for (int i = 0; i < 200; ++i) {
    EXPECT_LE(woken, fake_now + 501ms);  // somebody comes back for the rest
    pass(10ms);
  }
  EXPECT_NEAR(static_cast<double>(kernel.completions.size()), 20, 7);
  // An fsync waits for one, hence for all in front of it.
  write(41, RMEM_REQ_SYNC);
  pager->pump();
  EXPECT_EQ(kernel.completions.size(), 41u);
  // It was paid for, too.
  for (std::uint64_t i = 42; i <= 60; ++i) write(i);
  pass(10ms);
  EXPECT_EQ(kernel.completions.size(), 41u);
  pager->limit(kId, 0, 0);
  pass(10ms);
  EXPECT_EQ(kernel.completions.size(), 60u);
}

TEST_F(PagerWrite, WritesDuringAFlushMakeTheNextWindow) {
  write(1);
  pager->pump();
  store.answer(Kind::kWrite);
  ASSERT_EQ(store.count(Kind::kFlush), 1u);
  write(2);
  write(3);
  pager->pump();
  store.answer_all(Kind::kWrite);
  EXPECT_EQ(store.count(Kind::kFlush), 1u);  // one at a time
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completions.size(), 1u);
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completions.size(), 3u);
}

TEST_F(PagerWrite, FsyncDoesNotWaitForOtherWrites) {
  write(1, RMEM_REQ_SYNC);
  write(2, RMEM_REQ_SYNC);
  write(3);
  pager->pump();
  store.answer(Kind::kWrite);
  EXPECT_EQ(store.flushes, 0u);  // the second is part of the same fsync
  store.answer(Kind::kWrite);
  EXPECT_EQ(store.flushes, 1u);
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completed_with(1), 0);
  EXPECT_EQ(kernel.completed_with(2), 0);
  EXPECT_EQ(kernel.completed_with(3), -1);
}

TEST_F(PagerWrite, OldWindowIsFlushedThoughMoreIsToCome) {
  write(1);
  write(2);
  pager->pump();
  store.answer(Kind::kWrite);
  EXPECT_EQ(store.flushes, 0u);
  EXPECT_LE(woken, fake_now + std::chrono::milliseconds(500));
  pass(std::chrono::milliseconds(500));
  EXPECT_EQ(store.flushes, 1u);
}

TEST_F(PagerWrite, OtherEpochAtTheFlushPushesAgain) {
  write(1);
  write(2);
  pager->pump();
  store.answer_all(Kind::kWrite);
  store.geometry_.epoch = 2;  // the store began anew
  store.answer(Kind::kFlush);
  EXPECT_TRUE(kernel.completions.empty());
  pass(std::chrono::milliseconds(100));
  EXPECT_EQ(store.count(Kind::kWrite), 2u);
  EXPECT_EQ(kernel.write_outs, 4u);  // copied anew
  store.answer_all(Kind::kWrite);
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completed_with(1), 0);
  EXPECT_EQ(kernel.completed_with(2), 0);
}

TEST_F(PagerWrite, EpochsThatDifferWithinAWindow) {
  write(1);
  write(2);
  pager->pump();
  store.answer(Kind::kWrite);
  store.geometry_.epoch = 2;
  store.answer(Kind::kWrite);
  store.answer(Kind::kFlush);
  // The flush covers the second, not the first.
  EXPECT_EQ(kernel.completed_with(1), -1);
  EXPECT_EQ(kernel.completed_with(2), 0);
  pass(std::chrono::milliseconds(100));
  store.answer(Kind::kWrite);
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completed_with(1), 0);
}

TEST_F(PagerWrite, EpochsThatDifferWithinARequest) {
  kernel.dirty[1] = {{0, std::string(4096, 'a')}, {8192, std::string(4096, 'b')}};
  write(1, 0, 8192);
  pager->pump();
  ASSERT_EQ(store.count(Kind::kWrite), 2u);
  store.answer(Kind::kWrite);
  store.geometry_.epoch = 2;
  store.answer(Kind::kWrite);
  EXPECT_EQ(store.flushes, 0u);
  EXPECT_EQ(store.count(Kind::kWrite), 2u);
  store.answer_all(Kind::kWrite);
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completed_with(1), 0);
}

TEST_F(PagerWrite, ConnectionLostBeforeTheFlushPushesAgain) {
  write(1);
  pager->pump();
  store.answer(Kind::kWrite);
  pager->disconnect(kId, "gone");
  store.answer_everything(EAGAIN);
  EXPECT_TRUE(kernel.completions.empty());
  EXPECT_FALSE(pager->idle(kId));
  pager->connect(kId, store);
  EXPECT_EQ(store.count(Kind::kWrite), 1u);
  store.answer(Kind::kWrite);
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completed_with(1), 0);
}

TEST_F(PagerWrite, WriteGivenUpByTheKernelIsForgotten) {
  write(1);
  pager->pump();
  pager->disconnect(kId, "gone");
  store.answer_everything(EAGAIN);
  kernel.gone.insert(1);
  pager->connect(kId, store);
  EXPECT_TRUE(store.operations.empty());
  EXPECT_TRUE(pager->idle(kId));
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

// Issued 1 2 3, all come back: again 1 2 3, each copied out anew.
TEST_F(PagerWrite, RepetitionKeepsTheOrder) {
  for (std::uint64_t i = 1; i <= 3; ++i) write(i);
  pager->pump();
  pager->disconnect(kId, "gone");
  std::reverse(store.operations.begin(), store.operations.end());
  store.answer_everything(EAGAIN);
  write(4);
  pager->connect(kId, store);
  ASSERT_EQ(store.operations.size(), 4u);
  for (std::uint64_t i = 0; i < 4; ++i) {
    EXPECT_EQ(store.operations[i].offset, FakeKernel::plain_offset(i + 1));
  }
}

// A window that has to be pushed again, after a newer write has been issued:
// the newest bytes go last.
TEST_F(PagerWrite, RepetitionCarriesTheNewestBytes) {
  kernel.dirty[1] = {{0, std::string(4096, 'o')}};
  write(1);
  pager->pump();
  store.answer(Kind::kWrite);
  kernel.dirty[1] = {{0, std::string(4096, 'n')}};
  store.answer(Kind::kFlush, EAGAIN);
  pass(std::chrono::milliseconds(100));
  ASSERT_EQ(store.operations.size(), 1u);
  EXPECT_EQ(store.operations[0].first, std::byte{'n'});
}

TEST_F(PagerWrite, FullStoreIsToldForThatRequestOnly) {
  write(1);
  write(2);
  pager->pump();
  store.answer(Kind::kWrite, ENOSPC);
  EXPECT_EQ(kernel.completed_with(1), ENOSPC);
  store.answer(Kind::kWrite);
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completed_with(2), 0);
}

TEST_F(PagerWrite, FailedFlushIsToldForTheWholeWindow) {
  write(1);
  write(2);
  pager->pump();
  store.answer_all(Kind::kWrite);
  store.answer(Kind::kFlush, EIO);
  EXPECT_EQ(kernel.completed_with(1), EIO);
  EXPECT_EQ(kernel.completed_with(2), EIO);
  EXPECT_TRUE(pager->idle(kId));
}

TEST_F(PagerWrite, ErrorThatTheKernelDoesNotKnowBecomesEio) {
  write(1);
  pager->pump();
  store.answer(Kind::kWrite, EINVAL);
  EXPECT_EQ(kernel.completed_with(1), EIO);
}

TEST_F(PagerWrite, LostClaimFailsTheRegion) {
  write(1);
  write(2);
  pager->pump();
  store.answer(Kind::kWrite, ESTALE);
  store.answer(Kind::kWrite, ESTALE);
  pass(std::chrono::milliseconds(100));
  EXPECT_EQ(kernel.states.back().state, RMEM_STATE_FAILED);
  EXPECT_TRUE(kernel.completions.empty());  // the state ends them all
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

TEST_F(PagerWrite, ZeroPagesGoAsZero) {
  kernel.dirty[1] = {{0, std::string(4096, 'a') + std::string(8192, '\0') + std::string(4096, 'b') +
                             std::string(4096, '\0')}};
  write(1, 0, 5 * 4096);
  pager->pump();
  ASSERT_EQ(store.operations.size(), 4u);
  EXPECT_EQ(store.operations[0].kind, Kind::kWrite);
  EXPECT_EQ(store.operations[1].kind, Kind::kZero);
  EXPECT_EQ(store.operations[1].offset, 4096u);
  EXPECT_EQ(store.operations[1].length, 8192u);
  EXPECT_EQ(store.operations[2].kind, Kind::kWrite);
  EXPECT_EQ(store.operations[2].offset, 3 * 4096u);
  EXPECT_EQ(store.operations[3].kind, Kind::kZero);
  EXPECT_EQ(store.operations[3].length, 4096u);
}

TEST_F(PagerWrite, ZeroIsCompleteOnlyAfterItsFlush) {
  pager->accept(entry(50, RMEM_OP_ZERO, 0, 10 * kChunk));
  pager->pump();
  store.answer(Kind::kZero);
  EXPECT_EQ(kernel.completed_with(50), -1);
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completed_with(50), 0);
}

// Were the zero repeated after the write, it would destroy what was written.
TEST_F(PagerWrite, WritesWaitBehindAZero) {
  pager->accept(entry(50, RMEM_OP_ZERO, 0, kChunk));
  write(1);
  pager->pump();
  EXPECT_EQ(store.count(Kind::kWrite), 0u);
  store.answer(Kind::kZero);
  EXPECT_EQ(store.count(Kind::kWrite), 0u);
  store.answer(Kind::kFlush, EAGAIN);  // repeated
  pass(std::chrono::milliseconds(100));
  EXPECT_EQ(store.count(Kind::kWrite), 0u);
  store.answer(Kind::kZero);
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completed_with(50), 0);
  EXPECT_EQ(store.count(Kind::kWrite), 1u);
}

TEST_F(PagerWrite, PayloadThatGrewIsGivenAWholeBuffer) {
  kernel.dirty[1] = {{0, std::string(5 * 4096, 'x')}};
  write(1, 0, 4096);
  pager->pump();
  ASSERT_EQ(store.count(Kind::kWrite), 1u);
  EXPECT_EQ(store.operations[0].length, 5 * 4096u);
}

TEST_F(PagerWrite, BytesUnderWayAreBounded) {
  for (std::uint64_t i = 0; i < 64; ++i) {
    kernel.dirty[i + 1] = {{i * kChunk, std::string(kChunk, 'x')}};
    rmem_request e = entry(i + 1, RMEM_OP_WRITE, i * kChunk, kChunk);
    e.payload = kChunk;
    pager->accept(e);
  }
  pager->pump();
  EXPECT_EQ(store.count(Kind::kWrite), 32u);  // 8 MiB
  while (store.count(Kind::kWrite)) store.answer(Kind::kWrite);
  store.answer_all(Kind::kFlush);
  EXPECT_EQ(kernel.completions.size(), 64u);
}

TEST_F(PagerWrite, RunsThatMakeNoSenseAreRefused) {
  kernel.dirty[1] = {{kChunk * 5, std::string(4096, 'x')}};  // outside of the request
  write(1);
  pager->pump();
  EXPECT_TRUE(store.operations.empty());
  EXPECT_EQ(kernel.completed_with(1), EIO);
}

// --- a flush behind the writes ------------------------------------------------------

class PagerFlushBehind : public PagerTest {
 protected:
  static constexpr std::uint8_t kSync = RMEM_REQ_SYNC;
  static constexpr std::uint8_t kLast = RMEM_REQ_SYNC | RMEM_REQ_LAST;

  void SetUp() override {
    PagerTest::SetUp();
    store.flushes_behind = true;
  }
};

TEST_F(PagerFlushBehind, GoesWithoutWaitingForAnswers) {
  write(1, kSync);
  write(2, kLast);
  pager->pump();
  ASSERT_EQ(store.operations.size(), 3u);
  EXPECT_EQ(store.operations[2].kind, Kind::kFlush);
  EXPECT_TRUE(store.operations[2].behind);
  store.answer(Kind::kWrite);
  store.answer(Kind::kWrite);
  EXPECT_TRUE(kernel.completions.empty());
  EXPECT_FALSE(pager->idle(kId));
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completed_with(1), 0);
  EXPECT_EQ(kernel.completed_with(2), 0);
  EXPECT_EQ(kernel.complete_calls, 1u);
  EXPECT_EQ(store.flushes, 1u);
  EXPECT_TRUE(pager->idle(kId));
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

TEST_F(PagerFlushBehind, OnlyBehindTheLastOfAnFsync) {
  write(1, kSync);
  write(2, kSync);
  write(3);
  pager->pump();
  EXPECT_EQ(store.flushes, 0u);
  store.answer(Kind::kWrite);
  store.answer(Kind::kWrite);  // the hint has not come: as ever
  ASSERT_EQ(store.count(Kind::kFlush), 1u);
  EXPECT_FALSE(store.operations.back().behind);
}

TEST_F(PagerFlushBehind, OnlyWhereTheStoreCan) {
  store.flushes_behind = false;
  write(1, kLast);
  pager->pump();
  EXPECT_EQ(store.flushes, 0u);
  store.answer(Kind::kWrite);
  ASSERT_EQ(store.count(Kind::kFlush), 1u);
  EXPECT_FALSE(store.operations.back().behind);
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completed_with(1), 0);
  EXPECT_EQ(store.flushes, 1u);
}

TEST_F(PagerFlushBehind, CoversWhatWasAnsweredBeforeToo) {
  write(1);
  write(2);
  pager->pump();
  store.answer(Kind::kWrite);
  write(3, kLast);
  pager->pump();
  write(4);  // not this one
  pager->pump();
  store.answer_all(Kind::kWrite);
  store.answer(Kind::kFlush);
  for (std::uint64_t i = 1; i <= 3; ++i) EXPECT_EQ(kernel.completed_with(i), 0) << i;
  EXPECT_EQ(kernel.completed_with(4), -1);
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completed_with(4), 0);
  EXPECT_EQ(store.flushes, 2u);
}

TEST_F(PagerFlushBehind, WriteThatFailedIsNotCovered) {
  for (std::uint64_t i = 1; i <= 3; ++i) write(i, i == 3 ? kLast : kSync);
  pager->pump();
  store.answer(Kind::kWrite, ENOSPC);
  EXPECT_EQ(kernel.completed_with(1), ENOSPC);
  store.answer(Kind::kWrite, EAGAIN);
  store.answer(Kind::kWrite);
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completed_with(2), -1);
  EXPECT_EQ(kernel.completed_with(3), 0);
  pass(std::chrono::milliseconds(100));
  store.answer(Kind::kWrite);
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completed_with(2), 0);
  EXPECT_TRUE(pager->idle(kId));
}

// Written again while the flush that would have covered it is still under way.
TEST_F(PagerFlushBehind, WhatIsWrittenAgainIsNotCovered) {
  write(1, kSync);
  write(2, kLast);
  pager->pump();
  store.answer(Kind::kWrite, EBADMSG);
  ASSERT_EQ(store.count(Kind::kWrite), 2u);
  store.answer_all(Kind::kWrite);
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completed_with(1), -1);
  EXPECT_EQ(kernel.completed_with(2), 0);
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completed_with(1), 0);
}

TEST_F(PagerFlushBehind, AnsweredBeforeItsWritesCoversNothing) {
  write(1, kSync);
  write(2, kLast);
  pager->pump();
  store.answer(Kind::kWrite);
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completed_with(1), 0);
  EXPECT_EQ(kernel.completed_with(2), -1);
  store.answer(Kind::kWrite);
  EXPECT_EQ(kernel.completed_with(2), -1);
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completed_with(2), 0);
}

TEST_F(PagerFlushBehind, OtherEpochPushesAgain) {
  for (std::uint64_t i = 1; i <= 2; ++i) write(i, i == 2 ? kLast : kSync);
  pager->pump();
  store.answer(Kind::kWrite);
  store.geometry_.epoch = 2;
  store.answer(Kind::kWrite);
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completed_with(1), -1);
  EXPECT_EQ(kernel.completed_with(2), 0);
  pass(std::chrono::milliseconds(100));
  store.answer(Kind::kWrite);
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completed_with(1), 0);
}

TEST_F(PagerFlushBehind, FailedFlushIsToldToWhatWasAnswered) {
  for (std::uint64_t i = 1; i <= 2; ++i) write(i, i == 2 ? kLast : kSync);
  pager->pump();
  store.answer(Kind::kWrite);
  store.answer(Kind::kFlush, EIO);
  EXPECT_EQ(kernel.completed_with(1), EIO);
  EXPECT_EQ(kernel.completed_with(2), -1);
  store.answer(Kind::kWrite);
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completed_with(2), 0);
}

TEST_F(PagerFlushBehind, LostConnectionDoesAllOfItAgain) {
  for (std::uint64_t i = 1; i <= 3; ++i) write(i, i == 3 ? kLast : kSync);
  pager->pump();
  store.answer(Kind::kWrite);
  pager->disconnect(kId, "gone");
  store.answer_everything(EAGAIN);
  EXPECT_TRUE(kernel.completions.empty());
  pager->connect(kId, store);
  ASSERT_EQ(store.operations.size(), 4u);
  EXPECT_TRUE(store.operations[3].behind);
  store.answer_all(Kind::kWrite);
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completions.size(), 3u);
  EXPECT_TRUE(pager->idle(kId));
}

TEST_F(PagerFlushBehind, SomeAtOnceThenTheyShare) {
  for (std::uint64_t i = 1; i <= 7; ++i) {
    write(i, kLast);
    pager->pump();
  }
  EXPECT_EQ(store.flushes, 4u);
  store.answer(Kind::kWrite);
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completions.size(), 1u);
  EXPECT_EQ(store.flushes, 5u);  // for the other three
  store.answer_all(Kind::kWrite);
  store.answer_all(Kind::kFlush);
  EXPECT_EQ(kernel.completions.size(), 7u);
  EXPECT_EQ(store.flushes, 5u);
}

TEST_F(PagerFlushBehind, RegionThatGoesInTheMiddle) {
  write(1, kSync);
  write(2, kLast);
  pager->pump();
  store.answer(Kind::kWrite);
  bool quiet = false;
  pager->remove(kId, [&] { quiet = true; });
  store.answer_everything(0);
  pager->tick();
  EXPECT_TRUE(quiet);
  EXPECT_TRUE(kernel.completions.empty());
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

TEST_F(PagerFlushBehind, ZerosToo) {
  rmem_request e = entry(50, RMEM_OP_ZERO, 0, 10 * kChunk);
  e.flags = kLast;
  pager->accept(e);
  write(1);
  pager->pump();
  ASSERT_EQ(store.operations.size(), 2u);
  EXPECT_TRUE(store.operations[1].behind);
  store.answer(Kind::kZero);
  EXPECT_EQ(store.count(Kind::kWrite), 0u);  // not before the zero is complete
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completed_with(50), 0);
  EXPECT_EQ(store.count(Kind::kWrite), 1u);
}

// --- sent by the module -----------------------------------------------------------

class PagerSend : public PagerTest {
 protected:
  static constexpr std::uint64_t kPage = 4096;

  void SetUp() override {
    PagerTest::SetUp();
    kernel.can_send = true;
    store.least_sendable = 4 * kPage;
  }
  // The whole of a chunk.
  void chunk(std::uint64_t i) {
    kernel.dirty[i + 1] = {{i * kChunk, std::string(kChunk, 'x')}};
    rmem_request e = entry(i + 1, RMEM_OP_WRITE, i * kChunk, kChunk);
    e.payload = kChunk;
    pager->accept(e);
  }
};

TEST_F(PagerSend, WithoutABuffer) {
  const std::size_t free = pager->buffer_bytes_free();
  chunk(3);
  pager->pump();
  ASSERT_EQ(store.sends, 1u);
  EXPECT_EQ(store.writes, 0u);
  EXPECT_EQ(kernel.write_outs, 0u);
  EXPECT_EQ(pager->buffer_bytes_free(), free);
  EXPECT_EQ(pager->buffer_bytes(kId), 0u);
  EXPECT_TRUE(kernel.sent.empty());  // when the store comes to it
  store.answer(Kind::kWrite);
  ASSERT_EQ(kernel.sent.size(), 1u);
  EXPECT_EQ(kernel.sent[0].offset, 3 * kChunk);
  EXPECT_EQ(kernel.sent[0].length, kChunk);
  EXPECT_TRUE(kernel.completions.empty());
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completed_with(4), 0);
  EXPECT_EQ(pager->stats(kId).sent, 1u);
  EXPECT_EQ(pager->stats(kId).writes, 1u);
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

TEST_F(PagerSend, ByCopyWhereOneOfThemCannot) {
  kernel.can_send = false;
  chunk(0);
  pager->pump();
  kernel.can_send = true;
  store.least_sendable = kChunk + 1;
  chunk(1);
  pager->pump();
  EXPECT_EQ(store.sends, 0u);
  EXPECT_EQ(store.count(Kind::kWrite), 2u);
  EXPECT_EQ(kernel.write_outs, 2u);
  EXPECT_EQ(kernel.runs_calls, 0u);
}

TEST_F(PagerSend, ZerosAreToldNotSent) {
  kernel.dirty[1] = {{0, std::string(4 * kPage, 'a') + std::string(2 * kPage, '\0')},
                     {8 * kPage, std::string(4 * kPage, 'b')}};
  write(1, 0, 10 * kPage);
  pager->pump();
  ASSERT_EQ(store.operations.size(), 3u);
  EXPECT_EQ(store.operations[0].kind, Kind::kWrite);
  EXPECT_EQ(store.operations[0].length, 4 * kPage);
  EXPECT_EQ(store.operations[1].kind, Kind::kZero);
  EXPECT_EQ(store.operations[1].offset, 4 * kPage);
  EXPECT_EQ(store.operations[1].length, 2 * kPage);
  EXPECT_EQ(store.operations[2].offset, 8 * kPage);
  store.answer_all(Kind::kWrite);
  EXPECT_EQ(store.flushes, 0u);
  store.answer(Kind::kZero);
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completed_with(1), 0);
  EXPECT_EQ(kernel.sent.size(), 2u);
}

TEST_F(PagerSend, NothingButZeros) {
  kernel.dirty[1] = {{0, std::string(10 * kPage, '\0')}};
  write(1, 0, 10 * kPage);
  pager->pump();
  EXPECT_EQ(store.operations.size(), 1u);
  EXPECT_EQ(store.zeros, 1u);
  EXPECT_EQ(kernel.write_outs, 0u);
}

// On average: one long run does not carry many short ones along.
TEST_F(PagerSend, ManyShortRunsGoByCopy) {
  kernel.dirty[1] = {{0, std::string(8 * kPage, 'a')}};
  for (std::uint64_t i = 0; i < 4; ++i)
    kernel.dirty[1][(10 + 2 * i) * kPage] = std::string(kPage, 'b');
  write(1, 0, 12 * kPage);
  pager->pump();
  EXPECT_EQ(store.sends, 0u);
  EXPECT_EQ(store.writes, 5u);
  EXPECT_EQ(kernel.write_outs, 1u);
}

TEST_F(PagerSend, RepetitionAsksForItsRunsAnew) {
  chunk(0);
  chunk(1);
  pager->pump();
  EXPECT_EQ(kernel.runs_calls, 2u);
  pager->disconnect(kId, "gone");
  store.answer_everything(EAGAIN);
  kernel.gone.insert(2);
  kernel.dirty[1] = {{0, std::string(kChunk, '\0')}};
  pager->connect(kId, store);
  ASSERT_EQ(store.operations.size(), 1u);
  EXPECT_EQ(store.operations[0].kind, Kind::kZero);
  store.answer(Kind::kZero);
  store.answer(Kind::kFlush);
  EXPECT_EQ(kernel.completed_with(1), 0);
  EXPECT_EQ(kernel.completed_with(2), -1);
  EXPECT_TRUE(kernel.sent.empty());
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

TEST_F(PagerSend, WhatBefellTheSocketIsToldToTheStore) {
  const std::pair<kchan::KernelChannel::Sent, int> cases[] = {
      {{1000, EAGAIN, 0}, EAGAIN},
      {{0, EPIPE, 0}, EPIPE},
      {{7, ECONNRESET, ETIMEDOUT}, ETIMEDOUT},
      {{0, ENOENT, 0}, ENOENT},
  };
  std::uint64_t i = 0;
  for (const auto& [result, told] : cases) {
    chunk(i++);
    pager->pump();
    kernel.send_result = result;
    store.answer(Kind::kWrite);
    EXPECT_EQ(store.last_sent.bytes, result.bytes);
    EXPECT_EQ(store.last_sent.err, told);
    kernel.send_result = {};
    pass(std::chrono::milliseconds(100));
    store.answer(Kind::kWrite);
    store.answer(Kind::kFlush);
    EXPECT_EQ(kernel.completed_with(i), 0);
  }
}

TEST_F(PagerSend, BytesUnderWayAreBounded) {
  for (std::uint64_t i = 0; i < 64; ++i) chunk(i);
  pager->pump();
  EXPECT_EQ(store.count(Kind::kWrite), 32u);  // 8 MiB
  while (store.count(Kind::kWrite)) store.answer(Kind::kWrite);
  store.answer_all(Kind::kFlush);
  EXPECT_EQ(kernel.completions.size(), 64u);
}

TEST_F(PagerSend, RunsThatMakeNoSenseAreRefused) {
  kernel.dirty[1] = {{kChunk * 5, std::string(kChunk, 'x')}};  // outside of the request
  write(1, 0, kChunk);
  pager->pump();
  EXPECT_TRUE(store.operations.empty());
  EXPECT_EQ(kernel.completed_with(1), EIO);
  EXPECT_TRUE(pager->idle(kId));
}

TEST_F(PagerWrite, PushesByInterval) {
  pass(std::chrono::milliseconds(4900));
  EXPECT_EQ(kernel.pushes, 0u);
  pass(std::chrono::milliseconds(100));
  EXPECT_EQ(kernel.pushes, 1u);
  EXPECT_EQ(woken, fake_now + std::chrono::seconds(5));
  pass(std::chrono::milliseconds(5000));
  EXPECT_EQ(kernel.pushes, 2u);
  pager->disconnect(kId, "gone");
  pass(std::chrono::milliseconds(5000));
  EXPECT_EQ(kernel.pushes, 2u);  // better off in the kernel
}

}  // namespace
}  // namespace rmem::pager
