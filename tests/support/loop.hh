// SPDX-License-Identifier: MIT
// A reactor that tests drive until something has happened.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>

#include "base/reactor.hh"

namespace rmem::test {

class Loop {
 public:
  Loop()
      : reactor_(std::move(Reactor::create()).value()), deadline_(*reactor_, [this] {
          expired_ = true;
          reactor_->stop();
        }) {
    reactor_->on_turn_end([this] {
      if (condition_ && condition_()) reactor_->stop();
    });
  }

  Reactor& reactor() { return *reactor_; }

  // Runs the loop until `condition` holds. False, and a failed test, if it does
  // not within `patience`.
  bool until(std::function<bool()> condition,
             std::chrono::milliseconds patience = std::chrono::seconds(20)) {
    condition_ = std::move(condition);
    expired_ = false;
    deadline_.arm(patience);
    if (!condition_()) reactor_->run();
    deadline_.disarm();
    condition_ = nullptr;
    EXPECT_FALSE(expired_) << "what was waited for did not happen";
    return !expired_;
  }

  // Lets the loop run for a while: only to see that something does not happen.
  void run_for(std::chrono::milliseconds time) {
    bool over = false;
    Reactor::Timer timer(*reactor_, [&] { over = true; });
    timer.arm(time);
    until([&] { return over; });
  }

 private:
  std::unique_ptr<Reactor> reactor_;
  Reactor::Timer deadline_;
  std::function<bool()> condition_;
  bool expired_ = false;
};

}  // namespace rmem::test
