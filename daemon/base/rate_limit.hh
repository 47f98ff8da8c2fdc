// SPDX-License-Identifier: MIT
// How many bytes a second may go.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "base/reactor.hh"

namespace rmem {

// On average; a transfer that may begin is paid for afterwards, however long it is. Who has
// been idle has saved up kBurst. (The generic cell rate algorithm: ITU-T I.371.)
class RateLimit {
 public:
  using Clock = Reactor::Clock;
  static constexpr std::chrono::milliseconds kBurst{100};
  // What had to be paid for at the old rate in longer than that is forgiven when it changes.
  static constexpr std::chrono::milliseconds kMostDebt{1000};

  // Bytes a second; 0: no limit.
  void set(std::uint64_t rate, Clock::time_point now) {
    rate_ = rate;
    free_at_ = rate == 0 ? Clock::time_point{} : std::min(free_at_, now + kMostDebt);
  }
  std::uint64_t rate() const { return rate_; }
  // So many bytes go in kBurst.
  std::uint64_t burst() const { return rate_ / (std::chrono::seconds(1) / kBurst); }

  bool may(Clock::time_point now) const { return now >= free_at_; }
  // When it may again.
  Clock::time_point due() const { return free_at_; }

  void took(std::uint64_t bytes, Clock::time_point now) {
    if (rate_ == 0) return;
    const std::chrono::duration<double> time(static_cast<double>(bytes) /
                                             static_cast<double>(rate_));
    free_at_ = std::max(free_at_, now - kBurst) + std::chrono::duration_cast<Clock::duration>(time);
  }

 private:
  std::uint64_t rate_ = 0;
  Clock::time_point free_at_{};
};

}  // namespace rmem
