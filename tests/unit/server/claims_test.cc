// SPDX-License-Identifier: MIT
#include "server/claims.hh"

#include <gtest/gtest.h>

#include <cerrno>

namespace rmem::server {
namespace {

const Uuid kA = {1}, kB = {2}, kC = {3};

TEST(Claims, FirstComeIsServed) {
  const auto answer = decide({}, 0, {.writer = kA, .session = 5});
  EXPECT_EQ(answer.err, 0);
  EXPECT_EQ(answer.record.writer, kA);
  EXPECT_EQ(answer.record.generation, 1u);
}

TEST(Claims, SameWriterAgainKeepsItsGeneration) {
  const ClaimRecord record{.generation = 4, .writer = kA, .fenced = {}};
  for (const std::uint64_t known : {0, 4}) {
    const auto answer = decide(record, 5, {.writer = kA, .session = 6, .known = known});
    EXPECT_EQ(answer.err, 0);
    EXPECT_EQ(answer.record, record);
  }
}

TEST(Claims, SecondWriterIsBusy) {
  const ClaimRecord record{.generation = 1, .writer = kA, .fenced = {}};
  const auto answer = decide(record, 5, {.writer = kB, .session = 9});
  EXPECT_EQ(answer.err, EBUSY);
  EXPECT_EQ(answer.record, record);
}

TEST(Claims, TakingOverFencesTheOldWriterForGood) {
  const ClaimRecord record{.generation = 1, .writer = kA, .fenced = {}};
  const auto taken = decide(record, 5, {.writer = kB, .session = 9, .take_over = true});
  EXPECT_EQ(taken.err, 0);
  EXPECT_EQ(taken.record.writer, kB);
  EXPECT_EQ(taken.record.generation, 2u);
  EXPECT_EQ(decide(taken.record, 9, {.writer = kA, .session = 10}).err, ESTALE);
  EXPECT_EQ(decide(taken.record, 9, {.writer = kA, .session = 10, .take_over = true}).err, ESTALE);
  const auto free = released(taken.record);
  EXPECT_EQ(decide(free, 0, {.writer = kA, .session = 10}).err, ESTALE);
  EXPECT_EQ(decide(free, 0, {.writer = kC, .session = 10}).err, 0);
}

TEST(Claims, ReleasedClaimIsFreeAndTheNextOneIsNewer) {
  const ClaimRecord record{.generation = 1, .writer = kA, .fenced = {}};
  const auto answer = decide(released(record), 0, {.writer = kB, .session = 1});
  EXPECT_EQ(answer.err, 0);
  EXPECT_EQ(answer.record.generation, 2u);
  EXPECT_TRUE(answer.record.fenced.empty());
}

TEST(Claims, WrongGenerationIsStale) {
  const ClaimRecord record{.generation = 3, .writer = kA, .fenced = {}};
  EXPECT_EQ(decide(record, 1, {.writer = kA, .session = 2, .known = 2}).err, ESTALE);
  EXPECT_EQ(decide(record, 1, {.writer = kB, .session = 2, .known = 2}).err, ESTALE);
  EXPECT_EQ(decide(released(record), 0, {.writer = kB, .session = 2, .known = 2}).err, ESTALE);
}

TEST(Claims, ClaimFromThePastIsStale) {
  const ClaimRecord record{.generation = 1, .writer = kA, .fenced = {}};
  EXPECT_EQ(decide(record, 7, {.writer = kA, .session = 6}).err, ESTALE);
  EXPECT_EQ(decide(record, 7, {.writer = kA, .session = 7}).err, 0);
}

TEST(Claims, FencedListIsBoundedAndTheGenerationStillTells) {
  ClaimRecord record = decide({}, 0, {.writer = kA, .session = 1}).record;
  for (std::uint8_t i = 0; i < 2 * kFencedKept; ++i) {
    Uuid next{};
    next[1] = static_cast<std::uint8_t>(i + 1);
    record = decide(record, 0, {.writer = next, .session = 1, .take_over = true}).record;
  }
  EXPECT_EQ(record.fenced.size(), kFencedKept);
  EXPECT_EQ(decide(record, 0, {.writer = kA, .session = 1, .known = 1}).err, ESTALE);
}

}  // namespace
}  // namespace rmem::server
