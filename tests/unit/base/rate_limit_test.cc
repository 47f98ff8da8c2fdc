// SPDX-License-Identifier: MIT
#include "base/rate_limit.hh"

#include <gtest/gtest.h>

namespace rmem {
namespace {

using namespace std::chrono_literals;

class RateLimitTest : public testing::Test {
 protected:
  // Bytes that go in so much time, where each piece goes as soon as it may.
  std::uint64_t go(std::uint64_t piece, std::chrono::milliseconds time) {
    std::uint64_t bytes = 0;
    for (const auto end = now + time; now < end; now += 1ms) {
      for (int i = 0; i < 100 && limit.may(now); ++i) {
        limit.took(piece, now);
        bytes += piece;
      }
    }
    return bytes;
  }
  RateLimit limit;
  RateLimit::Clock::time_point now = RateLimit::Clock::time_point{} + 1h;
};

TEST_F(RateLimitTest, WithoutOneAllGoes) {
  EXPECT_EQ(go(1 << 30, 10ms), 1000ull << 30);
  limit.set(1000, now);
  limit.took(1 << 20, now);
  limit.set(0, now);
  EXPECT_TRUE(limit.may(now));
}

TEST_F(RateLimitTest, OnAverageNoMoreGoes) {
  limit.set(10'000'000, now);
  for (const std::uint64_t piece : {4096u, 262'144u, 2'097'152u}) {
    now += 10s;
    EXPECT_NEAR(static_cast<double>(go(piece, 10s)), 100e6, 1e6 + 2.0 * static_cast<double>(piece));
  }
}

TEST_F(RateLimitTest, WhoWasIdleHasSavedUpATenthOfASecond) {
  limit.set(10'000'000, now);
  now += 1h;
  EXPECT_EQ(limit.burst(), 1'000'000u);
  EXPECT_NEAR(static_cast<double>(go(100'000, 1ms)), 1e6, 1e5);
  EXPECT_LE(limit.due(), now + 10ms);
}

TEST_F(RateLimitTest, ALowRateIsNotPaidForWhenItIsOver) {
  limit.set(1000, now);
  limit.took(1 << 20, now);
  EXPECT_GT(limit.due(), now + 10min);
  limit.set(1'000'000, now);
  EXPECT_LE(limit.due(), now + RateLimit::kMostDebt);
}

}  // namespace
}  // namespace rmem
