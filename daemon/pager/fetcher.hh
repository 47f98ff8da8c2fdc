// SPDX-License-Identifier: MIT
// The reading half of a region: fetches, demand first, and read-ahead.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "linux/rmem.h"
#include "pager/read_ahead.hh"
#include "pager/request.hh"
#include "pager/touch_log.hh"
#include "store/store.hh"

namespace rmem::pager {

struct Shared;

// From RMEM_OP_FETCH to RMEM_IOC_FILL or _RECEIVE. A fetch waits in one of two
// queues. Where store and module can, the module receives its bytes from the
// store's socket; else it is read by the store into a buffer and filled from
// there. Fetches that nobody waits for never use the last buffers or the last
// places at the store, so that a demand fetch finds both.
//
// Who comes to wait for a fetch ahead that is far back among those at the store does not wait for
// them all: it is asked for a second time, as a demand. Whichever is there first fills it; what
// the other brings is thrown away, for it may be older than what the kernel has been
// told since.
//
// Over a distance a large chunk takes much longer than a page of it, where the link is slow or
// busy. There the page that somebody waits for, and some around it, are asked for by themselves: a
// scout, as a demand, whose bytes the kernel lets in early, while the chunk follows as a fetch
// ahead: what caches call critical word first.
//
// With Pager::Options::hedge, so is a short fetch on the page lane that is late, on the bulk lane:
// what TCP has lost at the end of a stream it sends again after 200 ms at best. At most
// one in twenty. Then the tasks do not ask by themselves over a distance.
//
// Where the store lends a connection, the tasks that wait ask there by themselves
// (RMEM_IOC_LANE), and take the answers; what they leave comes by here.
class Fetcher final : private store::Asker {
 public:
  Fetcher(Region& region, Shared& shared);
  ~Fetcher();

  // `lane`: its waiter asks for it there; 0: nobody has asked.
  void add(Request* fetch, std::uint32_t lane = 0);
  // RMEM_REQ_AGAIN: he could not, after all. False: that is not what it means.
  bool unasked(std::uint64_t cookie);
  // RMEM_REQ_JOINED: somebody waits for a fetch ahead, for the byte at `demand`. It is a demand
  // fetch from now on and goes on where it is, unless it is over.
  void joined(std::uint64_t cookie, std::uint64_t demand);
  // RMEM_OP_FETCH for which `tid` waits, or RMEM_OP_MISS: a step of that reader.
  void missed(std::uint64_t offset, std::uint32_t tid);
  // RMEM_OP_MISS: nothing to be done for it.
  void fetched_without(std::uint64_t offset, std::uint32_t tid);
  // RMEM_OP_HIT: the marked chunk at `offset` was used.
  void hit(std::uint64_t offset);

  // Pager::record().
  void record();
  std::optional<std::vector<Range>> stop_recording();
  const TouchLog* recording() const { return touches_.get(); }

  // Hands one fetch to the store; false: none there, or no buffer or place.
  bool issue_demand();
  bool issue_prefetch();
  bool wants_to_issue() const { return !demand_.empty() || !ahead_.empty(); }
  // Fetches for which nobody waits, here or at the store.
  std::size_t most_ahead() const { return most_ahead_; }  // of them at the store
  std::size_t under_way_ahead() const { return ahead_.size() + reading_ahead_; }

  // Asks for a second time for what is late; when there will be something, if nothing comes.
  void hedge(std::chrono::steady_clock::time_point now);
  std::chrono::steady_clock::time_point hedge_due() const;

  // Fetches for which the kernel had no memory: try again.
  void retry_fills();
  bool has_unfilled() const { return !unfilled_.empty(); }
  // Taken for fetches at the store or not filled yet.
  std::uint64_t buffer_bytes() const { return reading_.buffer_bytes() + unfilled_.buffer_bytes(); }

  // What the region's store is to set_asker().
  store::Asker& asker() { return *this; }

  // The store is gone for now: what nobody waits for is given back.
  void disconnected();
  // Nothing of the region is wanted any more. Reads under way end by themselves.
  void drop_all();

 private:
  // At the store at once: so many bytes, within so many fetches. Of those of which nobody
  // waits for, a quarter less, and fewer where chunks are large.
  static constexpr std::uint64_t kReadingBytes = std::uint64_t{16} << 20;
  static constexpr std::uint64_t kLeastReading = 64;
  static constexpr std::uint64_t kMostReading = 256;
  static constexpr std::uint64_t kLeastReadingAhead = 8;
  // Demand fetches leave these places to the others, lest they starve.
  static constexpr std::size_t kKeptForAhead = 4;
  // Bytes in front of it for which a fetch is asked for a second time.
  static constexpr std::uint64_t kFarBack = std::uint64_t{1} << 20;
  // A fetch is late after so many round trips and so long; larger ones may take their time.
  static constexpr int kLateTrips = 3;
  static constexpr std::chrono::milliseconds kLate{30};
  static constexpr std::uint64_t kHedged = 64 << 10;
  static constexpr std::uint64_t kHedgeOneIn = 20;
  // What a scout asks for, and of what fetches.
  static constexpr std::uint64_t kScouted = 16 << 10;
  static constexpr std::uint64_t kLeastScouted = 64 << 10;
  static constexpr unsigned kMaxDamaged = 5;
  // A round trip of more chunks than are worth being asked for one by one.
  static constexpr std::chrono::microseconds kFar{2000};
  static constexpr unsigned kMaxNoMemory = 50;

  static void read_done(void* request, const store::Outcome& outcome);
  void over(Request* r, const store::Outcome& outcome);
  // store::Asker
  Begun begin(const Lane& lane) override;
  Started pause(std::span<std::byte> header) override;
  void lost(std::uint32_t number) override;
  std::optional<void*> awaited(std::uint64_t cookie, std::uint64_t offset,
                               std::uint64_t length) override;
  void answered(void* ctx, const store::Outcome& outcome,
                std::span<const std::byte> bytes) override;
  // store::Receiver, `ctx` being the Request
  Taken receive(void* ctx, std::uint64_t offset, std::uint64_t length, int socket,
                const std::optional<std::uint32_t>& checksum) override;
  bool zeros(void* ctx) override;
  bool whole(void* ctx, std::span<const std::byte> bytes) override;
  int unwanted(const Request* r) const;
  bool directly(const Request* r) const;
  void settle(Request* r, const store::Outcome& outcome, std::span<const std::byte> bytes);
  Request* twin_of(Request* r);
  Request* ask_twice(Request* r);
  bool far() const;
  bool page_first(const Request* r) const;
  void send_scout(Request* r, std::uint64_t demand);
  void scout_over(Request* r, const store::Outcome& outcome);
  void promote(Request* r, bool at_store);
  bool may_hedge(const Request* r) const;
  std::chrono::microseconds late() const;
  void refused(Request* r);
  void read(Request* r);
  void fill(Request* r, std::span<const std::byte> bytes);
  void filled(Request* r);
  void again(Request* r);
  void fail(Request* r, int err);
  void release(Request* r);
  void release_buffer(Request* r);
  void fetch_ahead(ReadAhead::Window window);

  Region& region_;
  Shared& shared_;
  const std::size_t most_reading_;  // fetches at the store
  const std::size_t most_ahead_;    // of them, those that nobody waits for
  ReadAhead read_ahead_;
  std::unique_ptr<TouchLog> touches_;  // while it is recorded
  List demand_;
  List ahead_;
  List reading_;
  List asked_;  // by those who wait, on `lane_`; we are to receive the answers
  std::uint32_t lane_ = 0;
  List unfilled_;
  std::size_t reading_ahead_ = 0;
  // The last whole chunk that had the link to itself.
  std::chrono::steady_clock::duration whole_took_{};
  // One chunk of the region's own: regions whose store is slow cannot take the
  // last buffer from it.
  std::unique_ptr<std::byte[]> reserve_;
  bool reserve_taken_ = false;
};

}  // namespace rmem::pager
