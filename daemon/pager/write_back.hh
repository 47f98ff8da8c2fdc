// SPDX-License-Identifier: MIT
// The writing half of a region: writes, zeros, and the flush that makes a
// window of them durable.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "base/reactor.hh"
#include "linux/rmem.h"
#include "pager/request.hh"
#include "store/store.hh"

namespace rmem::pager {

struct Shared;

// From RMEM_OP_WRITE and _ZERO to RMEM_IOC_COMPLETE. A request is written (queued ->
// writing), acknowledged (-> acked), covered by a flush (-> covered) and only then
// complete: clean means durable. What was acknowledged under another durability epoch
// than its flush is pushed again.
//
// Where the store can flush what is still being written, the flush goes right behind the last
// write that an fsync waits for, and what is acknowledged before its answer comes is
// covered, too. What is acknowledged later, or had to be written again, waits for another one.
//
// Where store and module can, the module sends a write's bytes to the store's socket;
// else they are copied out into a buffer and written from there.
//
// Order: both always take a page's newest bytes and the store keeps the order of calls, so a
// repetition of a write is never older than what it overtakes. A repetition of a *zero* could be;
// therefore no write is issued while a zero is not complete.
class WriteBack final : private store::Sender {
 public:
  WriteBack(Region& region, Shared& shared) : region_(region), shared_(shared) {}
  ~WriteBack();

  void add(Request* write);

  // Hands one request to the store; false: none there, or not now.
  bool issue();
  bool wants_to_issue() const { return !queue_.empty(); }
  // Starts a flush if the window is due for one.
  void flush_if_due();
  // When the window is due at the latest; time_point::max(): no window.
  Reactor::Clock::time_point flush_due() const;

  // When what the region's push limit holds back may go; time_point::max(): nothing.
  Reactor::Clock::time_point held_until() const;

  // Nothing is queued, under way or waiting for its flush.
  bool idle() const {
    return queue_.empty() && writing_.empty() && acked_.empty() && covered_ == 0;
  }
  std::uint64_t buffer_bytes() const { return writing_.buffer_bytes(); }

  // Nothing of the region is wanted any more. Writes under way end by themselves.
  void drop_all();

 private:
  // At the store at once, in bytes.
  static constexpr std::uint64_t kMaxWriting = std::uint64_t{8} << 20;
  // A window is flushed at this size or age even though more is to come.
  static constexpr std::uint64_t kMaxWindow = std::uint64_t{32} << 20;
  static constexpr std::chrono::milliseconds kMaxWindowAge{500};
  static constexpr unsigned kMaxDamaged = 5;
  // At once. The server carries out one at a time, and those that wait as one.
  static constexpr std::size_t kMaxFlushes = 4;

  struct Flush {
    WriteBack* write_back = nullptr;
    std::uint64_t number = 0;  // 0: not under way
    List covered;              // acknowledged
  };

  static void write_done(void* request, const store::Outcome& outcome);
  static void flush_done(void* flush, const store::Outcome& outcome);

  // store::Sender
  Sent send(std::uint64_t offset, std::uint64_t length, int socket) override;
  bool directly(const Request* r) const;
  bool held() const;
  bool issue_write(Request* r);
  bool issue_directly(Request* r);
  void issue_zero(Request* r);
  bool write_runs(Request* r, std::uint64_t bytes, std::span<const rmem_run> runs);
  bool send_runs(Request* r, std::span<const rmem_write_run> runs);
  void issued(Request* r, bool sensible);
  void given(Request* r);
  void write_run(store::Store& store, Request* r, std::uint64_t offset,
                 std::span<const std::byte> bytes);
  void begin(Request* r);
  store::Done begin_part(Request* r);
  void forget(Request* r);
  void note(Request* r, const store::Outcome& outcome);
  void answered(Request* r);
  Flush* flush_of(const Request* r);
  bool window_is_due() const;
  void flush(bool behind);
  void flushed(List& covered, const store::Outcome& outcome);
  void again(Request* r);
  void complete(Request* r, int err);
  void complete_batch(std::span<std::uint64_t> cookies, int err);
  void release(Request* r);

  Region& region_;
  Shared& shared_;
  List queue_;    // by sequence
  List writing_;  // at the store
  List acked_;    // the window: acknowledged, not covered by a flush yet
  std::array<Flush, kMaxFlushes> flushes_;
  std::uint64_t last_flush_ = 0;  // its number
  std::size_t flushes_under_way_ = 0;
  std::size_t covered_ = 0;   // in their lists
  bool last_issued_ = false;  // the last write of an fsync, and no flush since
  std::uint64_t next_sequence_ = 0;
  std::uint64_t writing_bytes_ = 0;
  std::uint64_t acked_bytes_ = 0;
  std::size_t sync_to_ack_ = 0;  // an fsync waits for them: queued or writing
  std::size_t sync_acked_ = 0;   // and these are in the window
  std::size_t zeros_ = 0;        // zeros in writing, acked or covered
  Reactor::Clock::time_point window_began_{};
};

}  // namespace rmem::pager
