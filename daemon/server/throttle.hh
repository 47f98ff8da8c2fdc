// SPDX-License-Identifier: MIT
// The bytes of an export that may be read, or written, in a second, by all of its
// sessions together.
#pragma once

#include <cstdint>
#include <deque>

#include "base/rate_limit.hh"
#include "base/reactor.hh"

namespace rmem::server {

class Throttle {
 public:
  class Waiter {
   public:
    // It may go on, and what it waited with has been counted. Not to destroy the throttle.
    virtual void may_go() = 0;

   protected:
    ~Waiter() = default;
  };

  explicit Throttle(Reactor& reactor) : timer_(reactor, [this] { let_go(); }) {}

  // Bytes a second; 0: no limit.
  void set_rate(std::uint64_t rate);
  // True: go on. False: wait for may_go(), at most once at a time. They go in the order in
  // which they came, the urgent ones first.
  bool take(std::uint64_t bytes, Waiter& who, bool urgent);
  // It waits no more.
  void leave(Waiter& who);

 private:
  struct Waiting {
    Waiter* who;
    std::uint64_t bytes;
  };
  void let_go();
  bool empty() const { return urgent_.empty() && others_.empty(); }

  RateLimit limit_;
  std::deque<Waiting> urgent_;
  std::deque<Waiting> others_;
  Reactor::Timer timer_;
};

}  // namespace rmem::server
