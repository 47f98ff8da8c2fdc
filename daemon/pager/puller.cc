// SPDX-License-Identifier: MIT
#include "pager/puller.hh"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "pager/region.hh"

namespace rmem::pager {

std::uint64_t Puller::add(std::uint64_t offset, std::uint64_t length) {
  ranges_.push_back({offset, offset + length});
  if (ranges_.size() == 1) {
    passes_ = 0;
    furthest_ = offset;
    next_pass();
  }
  return ++added_;
}

void Puller::next_pass() {
  at_ = ranges_.front().offset;
  asked_ = false;
  ++passes_;
}

void Puller::next_range() {
  ranges_.pop_front();
  ++done_;
  if (std::exchange(full_, false)) {
    if (limited_.size() == kLimitedKept) limited_.pop_front();
    limited_.push_back(done_);
  }
  if (ranges_.empty()) return;
  passes_ = 0;
  furthest_ = ranges_.front().offset;
  next_pass();
}

bool Puller::advance() {
  if (ranges_.empty() || !region_.ready()) return false;
  const Range& range = ranges_.front();
  const std::size_t under_way = region_.fetcher().under_way_ahead();
  if (at_ < range.end) {
    if (under_way > kLow) return false;
    const std::uint64_t length = std::min(kWindow * region_.config().chunk, range.end - at_);
    std::uint32_t queued = 0;
    const int err = shared_.channel.prefetch(region_.config().id, at_, length, 0, queued);
    if (err == EDQUOT) {  // over once what was asked for is there
      full_ = true;
      at_ = range.end;
      return true;
    }
    if (err != 0) {
      if (region_.may_complain()) region_.log().warning("pull at {}: {}", at_, std::strerror(err));
      return false;  // at the next tick
    }
    at_ += length;
    furthest_ = std::max(furthest_, at_);
    asked_ = asked_ || queued != 0;
    return true;
  }
  if (under_way != 0) return false;
  if (asked_ && !full_ && passes_ < kMaxPasses) {
    next_pass();
    return true;
  }
  next_range();
  return true;
}

std::optional<Puller::Progress> Puller::progress() const {
  if (ranges_.empty()) return std::nullopt;
  const Range& range = ranges_.front();
  return Progress{range.offset, range.end - range.offset, furthest_ - range.offset};
}

}  // namespace rmem::pager
