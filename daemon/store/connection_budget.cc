// SPDX-License-Identifier: MIT
#include "store/connection_budget.hh"

#include <algorithm>
#include <cassert>
#include <utility>

namespace rmem::store {

ConnectionBudget::ConnectionBudget(Reactor& reactor) : turn_end_(reactor, [this] { admit(); }) {}

std::chrono::milliseconds ConnectionBudget::keep_alive(std::chrono::milliseconds alone) const {
  return std::clamp(members_ * kBetweenKeepAlives, alone, kLongest * alone);
}

void ConnectionBudget::begin(Turn& turn, Server& server) {
  ++server.busy;
  turn.state_ = Turn::State::kHas;
  turn.begin_();
}

// Whoever begins may ask and end as he likes: the map keeps its iterators, and a server is looked
// at anew each time.
void ConnectionBudget::admit() {
  for (auto at = servers_.begin(); at != servers_.end();) {
    while (at->second.busy < kTurns && !at->second.waiting.empty()) {
      Turn& turn = *at->second.waiting.front();
      at->second.waiting.pop_front();
      begin(turn, at->second);
    }
    at = at->second.busy == 0 && at->second.waiting.empty() ? servers_.erase(at) : std::next(at);
  }
}

ConnectionBudget::Turn::Turn(ConnectionBudget& budget, std::string server,
                             std::function<void()> begin)
    : budget_(budget), server_(std::move(server)), begin_(std::move(begin)) {}

ConnectionBudget::Turn::~Turn() { end(); }

void ConnectionBudget::Turn::ask(bool cannot_wait) {
  assert(state_ == State::kNone);
  Server& server = budget_.servers_[server_];
  if (!cannot_wait && (server.busy >= kTurns || !server.waiting.empty())) {
    server.waiting.push_back(this);
    state_ = State::kWaits;
    return;
  }
  begin(*this, server);
}

void ConnectionBudget::Turn::end() {
  const State was = std::exchange(state_, State::kNone);
  if (was == State::kNone) return;
  Server& server = budget_.servers_.at(server_);
  if (was == State::kWaits)
    std::erase(server.waiting, this);
  else
    --server.busy;
  budget_.turn_end_.schedule();
}

}  // namespace rmem::store
