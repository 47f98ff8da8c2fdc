// SPDX-License-Identifier: MIT
#include "server/throttle.hh"

namespace rmem::server {

void Throttle::set_rate(std::uint64_t rate) {
  if (rate == limit_.rate()) return;
  limit_.set(rate, Reactor::Clock::now());
  if (!empty()) timer_.arm({});
}

bool Throttle::take(std::uint64_t bytes, Waiter& who, bool urgent) {
  const auto now = Reactor::Clock::now();
  if (limit_.rate() == 0 && empty()) return true;
  if ((urgent ? urgent_.empty() : empty()) && limit_.may(now)) {
    limit_.took(bytes, now);
    return true;
  }
  (urgent ? urgent_ : others_).push_back({&who, bytes});
  if (!timer_.armed()) timer_.arm(limit_.due() - now);
  return false;
}

void Throttle::leave(Waiter& who) {
  const auto him = [&who](const Waiting& one) { return one.who == &who; };
  std::erase_if(urgent_, him);
  std::erase_if(others_, him);
}

void Throttle::let_go() {
  const auto now = Reactor::Clock::now();
  while (!empty() && limit_.may(now)) {
    std::deque<Waiting>& queue = urgent_.empty() ? others_ : urgent_;
    const Waiting first = queue.front();
    queue.pop_front();
    limit_.took(first.bytes, now);
    first.who->may_go();
  }
  if (!empty()) timer_.arm(limit_.due() - now);
}

}  // namespace rmem::server
