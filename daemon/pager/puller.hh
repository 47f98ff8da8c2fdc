// SPDX-License-Identifier: MIT
// Ranges of a region that shall be resident before anybody asks.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "pager/range.hh"
#include "pager/request.hh"

namespace rmem::pager {

struct Shared;

// Asks the kernel for prefetches, a window at a time, as fast as the fetcher gets
// rid of them: demand fetches and read-ahead go first. One pull after the
// other, the ranges of each in their order. Prefetches that were given up (lost connection, no
// memory) are asked for in another pass. A resident limit that is reached ends a pull: it must not
// evict what it has just fetched.
class Puller {
 public:
  Puller(Region& region, Shared& shared) : region_(region), shared_(shared) {}

  // At least one range, each within the region. The number of the pull, from 1.
  std::uint64_t add(std::vector<Range> ranges);
  // Asks for the next window if there is room. False: nothing to do now.
  bool advance();
  bool active() const { return !pulls_.empty(); }

  struct Progress {
    std::uint64_t offset = 0;  // of the first range
    std::uint64_t length = 0;  // of all of them
    std::uint64_t done = 0;    // bytes
  };
  std::optional<Progress> progress() const;     // of the pull at work
  std::uint64_t done() const { return done_; }  // pulls that are over
  // Of the last of them, those that the resident limit ended, by number.
  const std::deque<std::uint64_t>& limited() const { return limited_; }

 private:
  // Where the kernel evicts what it has just got, another pass would not help.
  static constexpr int kMaxPasses = 3;
  static constexpr std::size_t kLimitedKept = 16;

  struct Pull {
    std::vector<Range> ranges;
    std::uint64_t length = 0;  // of all of them
  };
  void begin();
  void next_pass();
  void next_pull();
  // A window is half of what may be at the store, and the next one comes when there is
  // room for it.
  std::size_t window() const;  // chunks
  bool has_enough() const;
  bool at_end() const { return range_ == pulls_.front().ranges.size(); }

  Region& region_;
  Shared& shared_;
  std::deque<Pull> pulls_;
  std::size_t range_ = 0;      // where the next window begins:
  std::uint64_t at_ = 0;       // so many bytes into that range
  std::uint64_t through_ = 0;  // bytes of the pull before that
  std::uint64_t furthest_ = 0;
  bool asked_ = false;  // in this pass
  bool full_ = false;   // the resident limit is reached
  int passes_ = 0;
  std::uint64_t added_ = 0;
  std::uint64_t done_ = 0;
  std::deque<std::uint64_t> limited_;
};

}  // namespace rmem::pager
