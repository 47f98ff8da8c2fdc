// SPDX-License-Identifier: MIT
#include "control/channel_loop.hh"

#include <sys/epoll.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace rmem::control {

ChannelLoop::ChannelLoop(Reactor& reactor, kchan::Device& device, std::function<void()> damaged)
    : reactor_(reactor),
      device_(device),
      damaged_(std::move(damaged)),
      timer_(reactor, [this] { tick(); }),
      pump_(reactor, [this] { pager_->pump(); }) {}

ChannelLoop::~ChannelLoop() {
  if (!pager_) return;
  reactor_.remove(device_.fd());
  pager_->set_drain(nullptr);
}

Status ChannelLoop::start(pager::Pager& pager) {
  if (Status s = reactor_.add(device_.fd(), EPOLLIN, *this); !s.ok()) return s;
  pager_ = &pager;
  pager.set_drain([this] { return drain(); });
  watching_ = true;
  return Status();
}

void ChannelLoop::wake(pager::Pager::Clock::time_point due) {
  timer_.arm(std::max(due - pager::Pager::Clock::now(), pager::Pager::Clock::duration{}));
}

void ChannelLoop::tick() {
  pager_->tick();
  if (!watching_ && !is_damaged_ && pager_->room()) watch(true);
}

void ChannelLoop::watch(bool ring) {
  watching_ = ring;
  (void)reactor_.modify(device_.fd(), ring ? std::uint32_t{EPOLLIN} : 0u);
}

// Whether there was anything.
bool ChannelLoop::take(std::uint32_t most) {
  rmem_request entry;
  empty_ = false;
  for (std::uint32_t i = 0; i < most; ++i) {
    if (!pager_->room()) {
      // The rest stays in the ring and in the kernel. Look again in a moment.
      behind_ = true;
      watch(false);
      wake(pager::Pager::Clock::now() + std::chrono::milliseconds(10));
      return i != 0;
    }
    const kchan::Ring::Pop pop = device_.ring().pop(entry);
    if (pop == kchan::Ring::Pop::kEmpty) {
      behind_ = false;
      empty_ = true;
      return i != 0;
    }
    if (pop == kchan::Ring::Pop::kDamaged) {
      is_damaged_ = true;
      watch(false);
      damaged_();
      return false;
    }
    // Who ought to have known of it earlier has gone on without, and its answer may
    // have come.
    if (behind_ && entry.op == RMEM_OP_FETCH) entry.lane = 0;
    pager_->accept(entry);
  }
  return most != 0;
}

bool ChannelLoop::drain() {
  if (is_damaged_) return false;
  // What came before this call is in the ring.
  if (take(device_.ring().capacity() + 1)) pump_.schedule();
  return empty_;
}

void ChannelLoop::on_events(std::uint32_t) {
  if (is_damaged_) return;
  (void)take(kMaxPerTurn);
  if (!is_damaged_) pager_->pump();
}

}  // namespace rmem::control
