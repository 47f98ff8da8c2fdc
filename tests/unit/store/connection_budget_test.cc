// SPDX-License-Identifier: MIT
#include "store/connection_budget.hh"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "support/loop.hh"

namespace rmem::store {
namespace {

using namespace std::chrono_literals;
using Turn = ConnectionBudget::Turn;

struct ConnectionBudgetTest : testing::Test {
  // A turn that notes its number when it begins.
  Turn& add(const std::string& server) {
    const int number = static_cast<int>(turns.size());
    turns.push_back(
        std::make_unique<Turn>(budget, server, [this, number] { begun.push_back(number); }));
    return *turns.back();
  }
  void fill(const std::string& server) {
    for (unsigned i = 0; i < ConnectionBudget::kTurns; ++i) add(server).ask(false);
    begun.clear();
  }
  void turn_of_the_loop() { loop.run_for(1ms); }

  test::Loop loop;
  ConnectionBudget budget{loop.reactor()};
  std::vector<int> begun;
  std::vector<std::unique_ptr<Turn>> turns;
};

TEST_F(ConnectionBudgetTest, ThereAreSoManyAtOnceAndOthersComeInTheOrderOfAsking) {
  for (unsigned i = 0; i < ConnectionBudget::kTurns + 3; ++i) add("a").ask(false);
  EXPECT_EQ(begun.size(), ConnectionBudget::kTurns);
  turns[5]->end();
  turns[2]->end();
  turn_of_the_loop();
  ASSERT_EQ(begun.size(), ConnectionBudget::kTurns + 2);
  EXPECT_EQ(begun[ConnectionBudget::kTurns], 16);
  EXPECT_EQ(begun[ConnectionBudget::kTurns + 1], 17);
}

TEST_F(ConnectionBudgetTest, OneServerDoesNotHoldUpAnother) {
  fill("dead");
  add("dead").ask(false);
  add("alive").ask(false);
  EXPECT_EQ(begun, std::vector<int>{ConnectionBudget::kTurns + 1});
}

TEST_F(ConnectionBudgetTest, WhoCannotWaitDoesNot) {
  fill("a");
  add("a").ask(false);
  add("a").ask(true);
  EXPECT_EQ(begun, std::vector<int>{ConnectionBudget::kTurns + 1});
  // and takes the place of somebody: one more has to end
  turns[0]->end();
  turn_of_the_loop();
  EXPECT_EQ(begun.size(), 1u);
  turns[1]->end();
  turn_of_the_loop();
  EXPECT_EQ(begun.size(), 2u);
}

TEST_F(ConnectionBudgetTest, WhoGoesWhileWaitingLeavesTheQueue) {
  fill("a");
  add("a").ask(false);
  add("a").ask(false);
  turns[ConnectionBudget::kTurns].reset();
  turns[0].reset();
  turn_of_the_loop();
  EXPECT_EQ(begun, std::vector<int>{ConnectionBudget::kTurns + 1});
}

TEST_F(ConnectionBudgetTest, ATurnThatEndsAsItBeginsLetsTheNextIn) {
  fill("a");
  std::unique_ptr<Turn> brief;
  brief = std::make_unique<Turn>(budget, "a", [&] { brief->end(); });
  brief->ask(false);
  add("a").ask(false);
  turns[0]->end();
  turn_of_the_loop();
  EXPECT_EQ(begun.size(), 1u);
}

TEST_F(ConnectionBudgetTest, ManyConnectionsShowLessOftenThatTheyLive) {
  EXPECT_EQ(budget.keep_alive(2000ms), 2000ms);
  std::vector<std::unique_ptr<ConnectionBudget::Member>> members;
  const auto have = [&](std::size_t count) {
    members.resize(count);
    for (auto& member : members)
      if (!member) member = std::make_unique<ConnectionBudget::Member>(budget);
  };
  have(400);
  EXPECT_EQ(budget.keep_alive(2000ms), 2000ms);
  have(1000);
  EXPECT_EQ(budget.keep_alive(2000ms), 5000ms);
  have(5000);
  EXPECT_EQ(budget.keep_alive(2000ms), 10000ms);
  have(1);
  EXPECT_EQ(budget.keep_alive(2000ms), 2000ms);
}

}  // namespace
}  // namespace rmem::store
