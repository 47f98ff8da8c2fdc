// SPDX-License-Identifier: MIT
// Refusals, in the log.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>

#include "base/log.hh"
#include "base/reactor.hh"

namespace rmem::server {

// One line for each host and reason, and not again for a while: whoever tries again and
// again, or tries everything, must not fill the log.
class Audit {
 public:
  using Clock = Reactor::Clock;
  static constexpr std::size_t kRemembered = 256;
  static constexpr std::chrono::minutes kAgain{10};

  explicit Audit(const char* component) : log_(component) {}

  // `peer` is the one that is logged; those of one `host` are alike.
  void refused(const std::string& host, const std::string& peer, const std::string& what,
               Clock::time_point now = Clock::now());

  // Of what was refused and not logged.
  std::uint64_t left_out() const { return left_out_; }

 private:
  log::Source log_;
  std::map<std::string, Clock::time_point> logged_;  // at most kRemembered
  bool full_ = false;                                // and that has been said
  std::uint64_t left_out_ = 0;                       // since the last line
};

}  // namespace rmem::server
