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
      timer_(reactor, [this] { tick(); }) {}

ChannelLoop::~ChannelLoop() {
  if (pager_) reactor_.remove(device_.fd());
}

Status ChannelLoop::start(pager::Pager& pager) {
  if (Status s = reactor_.add(device_.fd(), EPOLLIN, *this); !s.ok()) return s;
  pager_ = &pager;
  watching_ = true;
  return Status();
}

void ChannelLoop::wake(pager::Pager::Clock::time_point due) {
  timer_.arm(std::max(due - pager::Pager::Clock::now(), pager::Pager::Clock::duration{}));
}

void ChannelLoop::tick() {
  pager_->tick();
  if (!watching_ && pager_->room()) watch(true);
}

void ChannelLoop::watch(bool ring) {
  watching_ = ring;
  (void)reactor_.modify(device_.fd(), ring ? std::uint32_t{EPOLLIN} : 0u);
}

void ChannelLoop::on_events(std::uint32_t) {
  rmem_request entry;
  for (int i = 0; i < kMaxPerTurn; ++i) {
    if (!pager_->room()) {
      // The rest stays in the ring and in the kernel. Look again in a moment.
      watch(false);
      wake(pager::Pager::Clock::now() + std::chrono::milliseconds(10));
      break;
    }
    const kchan::Ring::Pop pop = device_.ring().pop(entry);
    if (pop == kchan::Ring::Pop::kEmpty) break;
    if (pop == kchan::Ring::Pop::kDamaged) {
      watch(false);
      return damaged_();
    }
    pager_->accept(entry);
  }
  pager_->pump();
}

}  // namespace rmem::control
