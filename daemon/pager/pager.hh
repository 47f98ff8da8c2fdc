// SPDX-License-Identifier: MIT
// The engine: turns the kernel's requests into reads, writes and flushes of
// stores. It has no socket and makes no system call of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/reactor.hh"
#include "kchan/kernel_channel.hh"
#include "linux/rmem.h"
#include "pager/arena.hh"
#include "pager/region.hh"
#include "pager/request.hh"
#include "store/store.hh"

namespace rmem::pager {

// All regions that this daemon serves. Not thread-safe: every call and every
// completion of a store happen on one thread. Serving a request allocates
// nothing, once the load has been seen.
//
// Usage: give every ring entry to accept() while room() says so, then call
// pump(); call tick() when woken.
class Pager {
 public:
  using Clock = Reactor::Clock;

  struct Options {
    // For bytes under way, all regions together.
    std::size_t buffer_bytes = std::size_t{32} << 20;
    // Requests taken from the ring and not complete: made at once, and most.
    std::size_t requests = 8192;
    std::size_t request_limit = std::size_t{1} << 18;
    // Whether what somebody waits for is asked for on the bulk lane, too, when it is late.
    bool hedge = false;
    // For tests.
    Clock::time_point (*now)() = &Clock::now;
  };

  // Both are not owned and must outlive the pager. `wake` is told when tick()
  // is to be called, whenever that becomes earlier; it must not call back.
  Pager(kchan::KernelChannel& channel, Options options,
        std::function<void(Clock::time_point)> wake);
  ~Pager();
  Pager(const Pager&) = delete;
  Pager& operator=(const Pager&) = delete;

  // A region that the channel serves from now on. It has no store yet: what is
  // asked of it waits.
  void add(RegionConfig config);
  // The region's store can be reached. Not owned; stays valid until the region
  // is disconnected or removed *and* quiet.
  void connect(std::uint32_t id, store::Store& store);
  // It cannot be reached now; `reason` is for people.
  void disconnect(std::uint32_t id, std::string_view reason);
  // It can never be reached again (another identity, a lost claim).
  void fail(std::uint32_t id, std::string_view reason);
  // Forgets the region. Once its store has answered everything it was asked,
  // tick() calls `quiet`; the store may go then, not before.
  void remove(std::uint32_t id, std::function<void()> quiet);

  // A ring entry, hostile until proven otherwise. Call pump() afterwards.
  void accept(const rmem_request& entry);
  // How to be given all that is in the ring by now, or, where there is no room() for
  // all of it, what else is said to have been asked on a lane as if it had not been.
  // Returns whether it was all.
  void set_drain(std::function<bool()> drain) { drain_ = std::move(drain); }
  bool drain() { return !drain_ || drain_(); }
  // Is there room for another one?
  bool room() const { return pool_.in_use() < options_.request_limit; }
  // Gives the stores what there is to do.
  void pump();
  // `region` has had an answer: pump() for it. For the regions themselves.
  void kick(Region& region);
  // tick() in the next turn.
  void soon() { wake_no_later_than(options_.now()); }
  // Does what is due by time, and calls back for regions that have become quiet.
  void tick();

  // Bytes a second from now on; 0: no limit.
  void limit(std::uint32_t id, std::uint64_t pull_rate, std::uint64_t push_rate);
  // Dirty pages become requests now. 0 or a positive errno.
  int push(std::uint32_t id);
  // What the ranges lack is prefetched in their order, before anybody asks; at least one, each
  // within the region. The number of the pull (Puller::done()), 0 if there is no such region.
  std::uint64_t pull(std::uint32_t id, std::vector<Range> ranges);
  const Puller* puller(std::uint32_t id) const;
  // From now on it is noted in what order chunks that are absent are touched; nothing is read
  // ahead meanwhile. Anew if it was already.
  void record(std::uint32_t id);
  // That, and an end to it; nothing if it was not noted.
  std::optional<std::vector<Range>> stop_recording(std::uint32_t id);
  // Chunks noted so far; nothing if they are not.
  std::optional<std::size_t> recorded(std::uint32_t id) const;
  // Nothing of the region waits to become durable.
  bool idle(std::uint32_t id) const;
  bool failed(std::uint32_t id) const;
  Stats stats(std::uint32_t id) const;
  std::size_t requests_in_use() const { return pool_.in_use(); }
  std::size_t buffer_bytes_free() const { return arena_.free_bytes(); }
  // What serving takes, all regions together: bytes under way and requests, and
  // the most that it can be with these regions.
  struct Memory {
    std::uint64_t bytes;
    std::uint64_t bound;
  };
  Memory memory() const;
  // Bytes of a region that are under way in buffers.
  std::uint64_t buffer_bytes(std::uint32_t id) const;

 private:
  Region* find(std::uint32_t id) const;
  void refuse(const rmem_request& entry, int err);
  void list(Region& region);
  bool issue_round();
  void settle();
  void wake_no_later_than(Clock::time_point due);

  kchan::KernelChannel& channel_;
  Options options_;
  std::function<void(Clock::time_point)> wake_;
  std::function<bool()> drain_;
  Arena arena_;
  RequestPool pool_;
  std::vector<rmem_run> runs_;
  std::vector<rmem_write_run> write_runs_;
  std::vector<std::uint64_t> cookies_;
  Shared shared_;
  Clock::time_point due_ = Clock::time_point::max();

  std::unordered_map<std::uint32_t, std::unique_ptr<Region>> regions_;
  struct Removed {
    std::unique_ptr<Region> region;
    std::function<void()> quiet;
  };
  std::vector<Removed> removed_;

  // Regions with something to do, in turn. Has room for all of them.
  std::vector<Region*> turns_;
  bool pumping_ = false;
  bool again_ = false;
};

}  // namespace rmem::pager
