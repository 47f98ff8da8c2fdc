// SPDX-License-Identifier: MIT
#include "base/reactor.hh"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <optional>
#include <thread>
#include <vector>

#include "base/unique_fd.hh"

namespace rmem {
namespace {

using namespace std::chrono_literals;

class ReactorTest : public testing::Test {
 protected:
  std::unique_ptr<Reactor> made = std::move(Reactor::create()).value();
  Reactor& reactor = *made;
};

// A connected pair of sockets, one end of which is watched.
struct Watched final : Reactor::Handler {
  explicit Watched(Reactor& reactor) : reactor(reactor) {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    mine.reset(fds[0]);
    other.reset(fds[1]);
    EXPECT_TRUE(reactor.add(mine.get(), EPOLLIN, *this).ok());
  }
  ~Watched() { reactor.remove(mine.get()); }
  void poke() { EXPECT_EQ(::write(other.get(), "x", 1), 1); }
  void on_events(std::uint32_t events) override {
    ++calls;
    last_events = events;
    if (then) then();
  }

  Reactor& reactor;
  UniqueFd mine, other;
  int calls = 0;
  std::uint32_t last_events = 0;
  std::function<void()> then;
};

TEST_F(ReactorTest, ReportsAReadableDescriptor) {
  Watched one(reactor);
  one.then = [&] { reactor.stop(); };
  one.poke();
  reactor.run();
  EXPECT_EQ(one.calls, 1);
  EXPECT_TRUE(one.last_events & EPOLLIN);
}

TEST_F(ReactorTest, ModifiedInterestIsHonoured) {
  Watched one(reactor);
  EXPECT_TRUE(reactor.modify(one.mine.get(), EPOLLOUT).ok());
  one.then = [&] { reactor.stop(); };
  reactor.run();
  EXPECT_TRUE(one.last_events & EPOLLOUT);
}

TEST_F(ReactorTest, RemovedHandlerIsNotCalledInTheSameTurn) {
  Watched one(reactor), two(reactor);
  // Both are ready in one turn; whoever comes first removes the other.
  one.then = [&] { reactor.remove(two.mine.get()), reactor.post([&] { reactor.stop(); }); };
  two.then = [&] { reactor.remove(one.mine.get()), reactor.post([&] { reactor.stop(); }); };
  one.poke();
  two.poke();
  reactor.run();
  EXPECT_EQ(one.calls + two.calls, 1);
}

TEST_F(ReactorTest, StaleEventDoesNotReachTheNextUserOfTheDescriptor) {
  // `first` closes `second` and opens a new descriptor with the same number
  // while an event for the old one is already collected.
  Watched first(reactor);
  std::optional<Watched> second(std::in_place, reactor);
  std::optional<Watched> third;
  const int number = second->mine.get();
  auto swap = [&] {
    if (third) return;
    second.reset();
    third.emplace(reactor);
    reactor.post([&] { reactor.stop(); });
  };
  first.then = swap;
  first.poke();
  second->poke();
  reactor.run();
  if (first.calls == 1 && third && third->mine.get() == number) {
    EXPECT_EQ(third->calls, 0);
  }
}

TEST_F(ReactorTest, TimersFireInTheOrderOfTheirTimes) {
  std::vector<int> order;
  Reactor::Timer late(reactor, [&] { order.push_back(3), reactor.stop(); });
  Reactor::Timer early(reactor, [&] { order.push_back(1); });
  Reactor::Timer middle(reactor, [&] { order.push_back(2); });
  late.arm(30ms);
  early.arm(10ms);
  middle.arm(20ms);
  EXPECT_TRUE(early.armed());
  reactor.run();
  EXPECT_EQ(order, (std::vector{1, 2, 3}));
  EXPECT_FALSE(early.armed());
}

TEST_F(ReactorTest, DisarmedTimerDoesNotFire) {
  int fired = 0;
  std::vector<std::unique_ptr<Reactor::Timer>> timers;
  for (int i = 0; i < 50; ++i)
    timers.push_back(std::make_unique<Reactor::Timer>(reactor, [&] { ++fired; }));
  for (std::size_t i = 0; i < timers.size(); ++i)
    timers[i]->arm(std::chrono::microseconds((i * 37) % 50));
  for (std::size_t i = 0; i < timers.size(); i += 2) timers[i]->disarm();
  Reactor::Timer end(reactor, [&] { reactor.stop(); });
  end.arm(20ms);
  reactor.run();
  EXPECT_EQ(fired, 25);
}

TEST_F(ReactorTest, TimerMayRearmItself) {
  int fired = 0;
  std::optional<Reactor::Timer> timer;
  timer.emplace(reactor, [&] {
    if (++fired == 3) return reactor.stop();
    timer->arm(0ms);
  });
  timer->arm(0ms);
  reactor.run();
  EXPECT_EQ(fired, 3);
}

TEST_F(ReactorTest, TimerMayDestroyItself) {
  std::optional<Reactor::Timer> timer;
  // Long enough a capture to live on the heap, where its loss would show.
  const std::string text(100, 'x');
  std::string seen;
  timer.emplace(reactor, [&, text] {
    timer.reset();
    seen = text;
    reactor.stop();
  });
  timer->arm(0ms);
  reactor.run();
  EXPECT_EQ(seen, text);
}

TEST_F(ReactorTest, PostedTasksRunOnTheLoop) {
  std::thread::id seen;
  std::thread other([&] {
    reactor.post([&] {
      seen = std::this_thread::get_id();
      reactor.stop();
    });
  });
  reactor.run();
  other.join();
  EXPECT_EQ(seen, std::this_thread::get_id());
}

TEST_F(ReactorTest, StopBeforeRunCounts) {
  reactor.stop();
  reactor.run();
}

TEST_F(ReactorTest, TurnEndRunsOncePerTurnHoweverOftenScheduled) {
  int runs = 0;
  Reactor::TurnEnd end(reactor, [&] {
    if (++runs == 3) return reactor.stop();
    end.schedule();
    end.schedule();
  });
  end.schedule();
  end.schedule();
  reactor.run();
  EXPECT_EQ(runs, 3);
}

TEST_F(ReactorTest, DestroyedTurnEndDoesNotRun) {
  std::optional<Reactor::TurnEnd> second;
  int runs = 0;
  Reactor::TurnEnd first(reactor, [&] { second.reset(), reactor.stop(); });
  second.emplace(reactor, [&] { ++runs; });
  first.schedule();
  second->schedule();
  reactor.run();
  EXPECT_EQ(runs, 0);
}

TEST_F(ReactorTest, PermanentHookRunsEveryTurn) {
  int turns = 0;
  reactor.on_turn_end([&] {
    if (++turns == 3) reactor.stop();
    reactor.post([] {});
  });
  reactor.run();
  EXPECT_EQ(turns, 3);
}

}  // namespace
}  // namespace rmem
