// SPDX-License-Identifier: MIT
// What the connections of one program must not cost together, however many they are.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>

#include "base/reactor.hh"

namespace rmem::store {

// Shared by the remote stores of a reactor, which it must not outlive; for its thread only.
//
// A thousand regions that have lost their server come back to it together. Were all let in at
// once, each would be served so late that it gave up, to come again: none would ever get in.
// So there are turns. And each connection shows now and then that it lives; a thousand of them
// do so less often than one.
class ConnectionBudget {
 public:
  // To one server at once.
  static constexpr unsigned kTurns = 16;
  // All connections together send a keep-alive as rarely as that,
  static constexpr std::chrono::milliseconds kBetweenKeepAlives{5};
  // but each at least once in so many times the interval that it would have alone.
  static constexpr unsigned kLongest = 5;

  explicit ConnectionBudget(Reactor& reactor);
  ConnectionBudget(const ConnectionBudget&) = delete;
  ConnectionBudget& operator=(const ConnectionBudget&) = delete;

  // The right to be connecting to a server.
  class Turn {
   public:
    // `begin` is called when it is one's turn; it may end() the turn, not destroy it.
    Turn(ConnectionBudget& budget, std::string server, std::function<void()> begin);
    ~Turn();
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

    // Calls `begin`, at once if there is room; else at the end of a turn of the loop, in the
    // order of asking. Whoever cannot wait is not made to, and takes room from others. Not
    // again before end().
    void ask(bool cannot_wait);
    // It is over, or not wanted any more.
    void end();

   private:
    friend class ConnectionBudget;
    enum class State { kNone, kWaits, kHas } state_ = State::kNone;
    ConnectionBudget& budget_;
    const std::string server_;
    const std::function<void()> begin_;
  };

  // Counts a connection for as long as it exists.
  class Member {
   public:
    explicit Member(ConnectionBudget& budget) : budget_(budget) { ++budget_.members_; }
    ~Member() { --budget_.members_; }
    Member(const Member&) = delete;
    Member& operator=(const Member&) = delete;

   private:
    ConnectionBudget& budget_;
  };

  // The keep-alive interval of each, where one alone would have `alone`.
  std::chrono::milliseconds keep_alive(std::chrono::milliseconds alone) const;

 private:
  struct Server {
    unsigned busy = 0;
    std::deque<Turn*> waiting;
  };

  static void begin(Turn& turn, Server& server);
  void admit();

  std::map<std::string, Server> servers_;  // those with anybody
  std::uint32_t members_ = 0;
  Reactor::TurnEnd turn_end_;
};

}  // namespace rmem::store
