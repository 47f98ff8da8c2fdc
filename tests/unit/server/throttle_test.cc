// SPDX-License-Identifier: MIT
#include "server/throttle.hh"

#include <gtest/gtest.h>

#include <string>

#include "support/loop.hh"

namespace rmem::server {
namespace {

struct Waiter final : Throttle::Waiter {
  Waiter(std::string& order, char name) : order(order), name(name) {}
  void may_go() override { order += name; }
  std::string& order;
  const char name;
};

class ThrottleTest : public testing::Test {
 protected:
  test::Loop loop;
  std::string order;
  Waiter a{order, 'a'}, b{order, 'b'}, c{order, 'c'};
  Throttle throttle{loop.reactor()};
};

TEST_F(ThrottleTest, WithoutARateAllGo) {
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(throttle.take(1ull << 40, a, false));
}

TEST_F(ThrottleTest, TheyGoInTheirOrderTheUrgentFirst) {
  throttle.set_rate(1'000'000);
  EXPECT_TRUE(throttle.take(200'000, a, false));  // and 100 ms to pay for it
  EXPECT_FALSE(throttle.take(1000, a, false));
  EXPECT_FALSE(throttle.take(1000, b, false));
  EXPECT_FALSE(throttle.take(1000, c, true));
  loop.until([&] { return order.size() == 3; });
  EXPECT_EQ(order, "cab");
}

TEST_F(ThrottleTest, WhoLeavesIsNotCalled) {
  throttle.set_rate(1'000'000);
  EXPECT_TRUE(throttle.take(200'000, a, false));
  EXPECT_FALSE(throttle.take(1000, a, false));
  EXPECT_FALSE(throttle.take(1000, b, false));
  throttle.leave(a);
  loop.until([&] { return !order.empty(); });
  EXPECT_EQ(order, "b");
}

TEST_F(ThrottleTest, ARateThatIsTakenAwayLetsAllGo) {
  throttle.set_rate(1);
  EXPECT_TRUE(throttle.take(1 << 30, a, false));
  EXPECT_FALSE(throttle.take(1, a, false));
  EXPECT_FALSE(throttle.take(1, b, true));
  throttle.set_rate(0);
  loop.until([&] { return order.size() == 2; });
  EXPECT_TRUE(throttle.take(1 << 30, c, false));
}

TEST_F(ThrottleTest, WhoComesLaterDoesNotPassThoseWhoWait) {
  throttle.set_rate(10'000'000);
  EXPECT_TRUE(throttle.take(2'000'000, a, false));
  EXPECT_FALSE(throttle.take(1000, a, false));
  throttle.set_rate(0);
  EXPECT_FALSE(throttle.take(1000, b, false));
  loop.until([&] { return order.size() == 2; });
  EXPECT_EQ(order, "ab");
}

}  // namespace
}  // namespace rmem::server
