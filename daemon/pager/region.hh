// SPDX-License-Identifier: MIT
// One region as the pager sees it.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/log.hh"
#include "base/rate_limit.hh"
#include "base/reactor.hh"
#include "kchan/kernel_channel.hh"
#include "pager/arena.hh"
#include "pager/fetcher.hh"
#include "pager/puller.hh"
#include "pager/request.hh"
#include "pager/write_back.hh"
#include "store/store.hh"

namespace rmem::pager {

class Pager;

struct RegionConfig {
  std::uint32_t id = 0;
  std::string name;  // for log lines
  std::uint64_t size = 0;
  std::uint32_t chunk = 0;
  bool read_only = false;
  std::chrono::milliseconds push_interval{0};  // 0: only on demand
  std::uint64_t resident_limit = 0;            // bytes; 0: none
  std::uint64_t pull_rate = 0;                 // bytes a second at first; 0: no limit
  std::uint64_t push_rate = 0;                 // likewise
};

// Since this daemon serves the region; the kernel's own counters live longer.
struct Stats {
  std::uint64_t fetches = 0;     // reads of the store, repetitions included
  std::uint64_t prefetches = 0;  // of which read-ahead asked for, before anybody came
  std::uint64_t received = 0;    // of the fetches: whose bytes the module received itself
  std::uint64_t asked = 0;       // of the fetches: asked by who waits
  std::uint64_t early = 0;       // pages' fetches of which those came first, by themselves
  std::uint64_t hedged = 0;      // of the fetches: asked for a second time because they were late
  std::uint64_t writes = 0;      // requests given to the store, repetitions included
  std::uint64_t sent = 0;        // of the writes: whose bytes the module sends itself
  std::uint64_t flushes = 0;
  std::uint64_t repeated = 0;   // requests that had to be done again
  std::uint64_t refused = 0;    // writes that the store would not take
  std::uint64_t damaged = 0;    // answers whose bytes were damaged
  std::uint64_t malformed = 0;  // ring entries that made no sense
};

// What all regions of a pager share.
struct Shared {
  Pager& pager;
  kchan::KernelChannel& channel;
  Arena& arena;
  RequestPool& pool;
  std::span<rmem_run> runs;  // scratch, for one write
  std::span<rmem_write_run> write_runs;
  std::span<std::uint64_t> cookies;  // scratch, for one batch
  Reactor::Clock::time_point (*now)();
  bool hedge;  // as in Pager::Options

  // Buffers that what nobody waits for may not use.
  bool scarce(std::size_t bytes) const { return arena.free_bytes() < bytes + arena.size() / 4; }
};

// Joins the two halves with the state of the store behind them. Lives until the
// store has answered everything that it was asked.
class Region {
 public:
  using Clock = Reactor::Clock;
  // How long to leave a store alone that answers EAGAIN out of the blue.
  static constexpr std::chrono::milliseconds kPauseOnAgain{100};
  // How long to wait for somebody who knows why a store answers ESTALE.
  static constexpr std::chrono::milliseconds kPauseOnStale{100};
  // How long to wait when the kernel has no memory.
  static constexpr std::chrono::milliseconds kPauseOnNoMemory{20};
  // How often to see whether a pull can go on.
  static constexpr std::chrono::milliseconds kPullInterval{10};

  Region(RegionConfig config, Shared& shared);

  const RegionConfig& config() const { return config_; }
  Stats& stats() { return stats_; }
  const log::Source& log() const { return log_; }
  Fetcher& fetcher() { return fetcher_; }
  const Fetcher& fetcher() const { return fetcher_; }
  WriteBack& write_back() { return write_back_; }
  Puller& puller() { return puller_; }
  const Puller& puller() const { return puller_; }
  // Of what is pulled, and of writes that nobody waits for.
  RateLimit& pull_limit() { return pull_limit_; }
  RateLimit& push_limit() { return push_limit_; }

  // `store` is reachable and stays valid until disconnect() or until the region
  // is gone. Tells the kernel: active.
  void connect(store::Store& store);
  // Tells the kernel: degraded. What was under way comes back as EAGAIN.
  void disconnect(std::string_view reason);
  // For good. Tells the kernel, which ends every request of the region.
  void fail(std::string_view reason);
  // The store has answered ESTALE. Whoever watches it is about to say why, with
  // fail(); if nobody does, it happens a moment later without.
  void stale();
  // As fail(), without telling: the region is no more.
  void retire();

  // The kernel takes no more answers on that lane.
  void take_answers(std::uint32_t lane) {
    if (store_) store_->take_answers(lane);
  }

  // May the store be asked now?
  bool ready() const { return store_ && !gone_ && !stale_ && paused_until_ == Clock::time_point{}; }
  // No answer matters any more: failed or retired.
  bool gone() const { return gone_; }
  bool failed() const { return failed_; }
  store::Store& store() { return *store_; }

  // Ask nobody for a moment: the store answered EAGAIN though nobody said that
  // it is gone, or the kernel has no memory.
  void pause(std::chrono::milliseconds duration);

  // Errors of one kind come by the thousand; true at most once a second.
  bool may_complain();

  // Answers of the store still to come; the store may go at 0.
  void operation_begins() { ++operations_; }
  void operation_ends() { --operations_; }
  bool quiet() const { return operations_ == 0; }

  // Does what is due by time: push and retries.
  void tick(Clock::time_point now);
  // When tick() has something to do again.
  Clock::time_point due() const;

  // Something to hand to the store, and a store to hand it to.
  bool wants_turn() const {
    return ready() && (fetcher_.wants_to_issue() || write_back_.wants_to_issue());
  }
  // Is it in the pager's list of those that want a turn? The pager's business.
  bool listed = false;

 private:
  RegionConfig config_;
  Shared& shared_;
  log::Source log_;
  Stats stats_;
  store::Store* store_ = nullptr;
  bool gone_ = false;
  bool failed_ = false;
  bool stale_ = false;
  std::uint64_t operations_ = 0;
  Clock::time_point paused_until_{};  // zero: not paused
  Clock::time_point push_due_;
  Clock::time_point complained_{};
  RateLimit pull_limit_;
  RateLimit push_limit_;
  Fetcher fetcher_;
  WriteBack write_back_;
  Puller puller_;
};

}  // namespace rmem::pager
