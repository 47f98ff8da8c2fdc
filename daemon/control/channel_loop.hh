// SPDX-License-Identifier: MIT
// Moves requests from the ring to the pager, and wakes the pager in time.
#pragma once

#include <functional>
#include <memory>

#include "base/reactor.hh"
#include "kchan/device.hh"
#include "pager/pager.hh"

namespace rmem::control {

// The daemon's heart: one turn per wake-up of the control fd. `damaged` is
// called, once, when the ring makes no sense any more; nothing is taken from it
// then.
class ChannelLoop final : private Reactor::Handler {
 public:
  ChannelLoop(Reactor& reactor, kchan::Device& device, std::function<void()> damaged);
  ~ChannelLoop();
  ChannelLoop(const ChannelLoop&) = delete;
  ChannelLoop& operator=(const ChannelLoop&) = delete;

  // The pager to feed; must outlive the loop.
  Status start(pager::Pager& pager);
  // For the pager: call its tick() then.
  void wake(pager::Pager::Clock::time_point due);

 private:
  // Entries taken in one turn, so that answers of stores get theirs.
  static constexpr std::uint32_t kMaxPerTurn = 1024;

  void on_events(std::uint32_t events) override;
  void tick();
  bool take(std::uint32_t most);
  bool drain();
  void watch(bool ring);

  Reactor& reactor_;
  kchan::Device& device_;
  std::function<void()> damaged_;
  pager::Pager* pager_ = nullptr;
  Reactor::Timer timer_;
  Reactor::TurnEnd pump_;
  bool watching_ = false;
  bool behind_ = false;  // there was no room for all that was in the ring
  bool empty_ = false;   // the ring, when it was looked at last
  bool is_damaged_ = false;
};

}  // namespace rmem::control
