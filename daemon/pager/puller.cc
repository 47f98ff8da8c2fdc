// SPDX-License-Identifier: MIT
#include "pager/puller.hh"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "pager/pager.hh"
#include "pager/region.hh"

namespace rmem::pager {

std::uint64_t Puller::add(std::vector<Range> ranges) {
  Pull pull{std::move(ranges)};
  for (const Range& range : pull.ranges) pull.length += range.length;
  pulls_.push_back(std::move(pull));
  if (pulls_.size() == 1) begin();
  return ++added_;
}

void Puller::begin() {
  passes_ = 0;
  furthest_ = 0;
  next_pass();
}

void Puller::next_pass() {
  range_ = 0;
  at_ = through_ = 0;
  asked_ = false;
  ++passes_;
}

void Puller::next_pull() {
  pulls_.pop_front();
  ++done_;
  if (std::exchange(full_, false)) {
    if (limited_.size() == kLimitedKept) limited_.pop_front();
    limited_.push_back(done_);
  }
  if (!pulls_.empty()) begin();
}

std::size_t Puller::window() const { return region_.fetcher().most_ahead() / 2; }

bool Puller::has_enough() const {
  return region_.fetcher().under_way_ahead() > region_.fetcher().most_ahead() - window();
}

bool Puller::advance() {
  if (pulls_.empty() || !region_.ready()) return false;
  const Pull& pull = pulls_.front();
  if (!at_end() && (has_enough() || !region_.pull_limit().may(shared_.now()))) return false;
  // What was asked for is in the ring, if not here.
  if (!shared_.pager.drain()) return false;
  if (!at_end()) {
    if (has_enough()) return false;
    // A window is made of as many ranges as it takes.
    std::uint64_t left = window() * region_.config().chunk;
    if (region_.pull_limit().rate() != 0)
      left = std::clamp<std::uint64_t>(region_.pull_limit().burst(), region_.config().chunk, left);
    while (left != 0 && !at_end()) {
      const Range& range = pull.ranges[range_];
      const std::uint64_t length = std::min(left, range.length - at_);
      std::uint32_t queued = 0;
      const int err =
          shared_.channel.prefetch(region_.config().id, range.offset + at_, length, 0, queued);
      if (err == EDQUOT) {  // over once what was asked for is there
        full_ = true;
        range_ = pull.ranges.size();
        return true;
      }
      if (err != 0) {
        if (region_.may_complain())
          region_.log().warning("pull at {}: {}", range.offset + at_, std::strerror(err));
        return false;  // at the next tick
      }
      region_.pull_limit().took(std::uint64_t{queued} * region_.config().chunk, shared_.now());
      // A short range takes a chunk, too.
      left -= std::min(left, std::max<std::uint64_t>(length, region_.config().chunk));
      at_ += length;
      through_ += length;
      furthest_ = std::max(furthest_, through_);
      asked_ = asked_ || queued != 0;
      if (at_ == range.length) {
        ++range_;
        at_ = 0;
      }
    }
    return true;
  }
  if (region_.fetcher().under_way_ahead() != 0) return false;
  if (asked_ && !full_ && passes_ < kMaxPasses) {
    next_pass();
    return true;
  }
  next_pull();
  return true;
}

std::optional<Puller::Progress> Puller::progress() const {
  if (pulls_.empty()) return std::nullopt;
  const Pull& pull = pulls_.front();
  return Progress{pull.ranges.front().offset, pull.length, furthest_};
}

}  // namespace rmem::pager
