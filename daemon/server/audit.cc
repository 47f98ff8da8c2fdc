// SPDX-License-Identifier: MIT
#include "server/audit.hh"

namespace rmem::server {

void Audit::refused(const std::string& host, const std::string& peer, const std::string& what,
                    Clock::time_point now) {
  const auto known = logged_.find(host + ' ' + what);
  if (known != logged_.end() && now - known->second < kAgain) {
    ++left_out_;
    return;
  }
  if (known == logged_.end() && logged_.size() >= kRemembered) {
    std::erase_if(logged_, [now](const auto& one) { return now - one.second >= kAgain; });
    if (logged_.size() >= kRemembered) {
      ++left_out_;
      if (!std::exchange(full_, true))
        log_.warning("{} kinds of refusals in {} minutes: no more are logged for now", kRemembered,
                     kAgain.count());
      return;
    }
  }
  full_ = false;
  logged_[host + ' ' + what] = now;
  const std::uint64_t others = std::exchange(left_out_, 0);
  if (others == 0)
    log_.warning("{}: refused: {}", peer, what);
  else
    log_.warning("{}: refused: {} ({} refusals before were not logged)", peer, what, others);
}

}  // namespace rmem::server
