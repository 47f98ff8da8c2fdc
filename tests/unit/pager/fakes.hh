// SPDX-License-Identifier: MIT
// A kernel and a store that do as the test says.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "kchan/kernel_channel.hh"
#include "pager/pager.hh"
#include "store/store.hh"

namespace rmem::pager {

using Clock = Reactor::Clock;

// Time stands still until a test moves it.
inline Clock::time_point fake_now{std::chrono::hours(1)};
inline Clock::time_point now() { return fake_now; }

// Remembers what it was told. Preallocates, so that it does not disturb counts
// of allocations.
class FakeKernel final : public kchan::KernelChannel {
 public:
  struct Fill {
    std::uint64_t cookie;
    std::uint32_t flags;
    std::byte first;
    std::uint64_t length;
  };
  struct Completion {
    std::uint64_t cookie;
    int error;
    std::size_t batch;  // number of the call
  };
  struct State {
    std::uint32_t state;
    std::string reason;
  };
  struct Window {
    std::uint64_t offset;
    std::uint64_t length;
  };

  FakeKernel() {
    fills.reserve(1 << 16);
    completions.reserve(1 << 16);
  }

  int serve(std::uint32_t) override { return 0; }
  int push(std::uint32_t) override {
    ++pushes;
    return 0;
  }
  int fill(std::uint64_t cookie, std::uint64_t offset, std::span<const std::byte> bytes,
           std::uint32_t flags) override {
    EXPECT_TRUE(offset == 0 || flags == RMEM_FILL_EARLY);
    if (!fill_errors.empty()) {
      const int err = fill_errors.front();
      fill_errors.pop_front();
      if (err) return err;
    }
    fills.push_back({cookie, flags, bytes.front(), bytes.size()});
    return 0;
  }
  int fill_zeros(std::uint64_t cookie, std::uint64_t length, std::uint32_t flags) override {
    return fill(cookie, 0, std::vector<std::byte>(length), flags | RMEM_FILL_ZERO);
  }
  bool fills_early() const override { return can_fill_early; }
  bool receives() const override { return can_receive; }
  Received receive(std::uint64_t cookie, std::uint64_t offset, std::uint64_t length, int,
                   std::uint32_t flags, const std::optional<std::uint32_t>&) override {
    if (!receive_results.empty()) {
      const Received result = receive_results.front();
      receive_results.pop_front();
      if (result.err) return result;
    }
    received.push_back({cookie, flags, {}, offset + length});
    return {length, 0, 0};
  }
  bool asks() const override { return can_ask; }
  int lane(std::uint32_t, const Lane& lane, bool& takes) override {
    lanes.push_back(lane.number);
    takes_offered = !lane.answer.empty();
    takes = takes_offered && can_take;
    return lane_error;
  }
  LaneEnd end_lane(std::uint32_t, std::span<std::byte> header) override {
    lanes.push_back(0);
    std::memset(header.data(), 0x33, lane_end.header);
    return lane_end;
  }
  int complete(std::span<const std::uint64_t> cookies, int error) override {
    ++complete_calls;
    for (std::uint64_t cookie : cookies) completions.push_back({cookie, error, complete_calls});
    return 0;
  }
  int write_out(std::uint64_t cookie, std::span<std::byte> into, std::span<rmem_run> runs,
                std::uint64_t& bytes, std::uint32_t& run_count) override {
    ++write_outs;
    if (gone.count(cookie)) return ENOENT;
    const auto it = dirty.find(cookie);
    if (it == dirty.end()) {  // the plain case: one page of a pattern
      bytes = 4096;
      if (into.size() < bytes) return ENOBUFS;
      std::memset(into.data(), 0x5a, bytes);
      runs[0] = {plain_offset(cookie), bytes};
      run_count = 1;
      return 0;
    }
    bytes = 0;
    run_count = 0;
    for (const auto& [offset, data] : it->second) {
      if (bytes + data.size() > into.size()) return ENOBUFS;
      std::memcpy(into.data() + bytes, data.data(), data.size());
      runs[run_count++] = {offset, data.size()};
      bytes += data.size();
    }
    return 0;
  }
  bool sends() const override { return can_send; }
  int write_runs(std::uint64_t cookie, std::span<rmem_write_run> runs,
                 std::uint32_t& run_count) override {
    ++runs_calls;
    if (gone.count(cookie)) return ENOENT;
    run_count = 0;
    for (const auto& [offset, data] : dirty.at(cookie)) {
      for (std::size_t at = 0; at < data.size(); at += 4096) {
        const std::string page = data.substr(at, 4096);
        const bool zero = page == std::string(page.size(), '\0');
        const std::uint32_t flags = zero ? RMEM_RUN_ZERO : 0;
        if (at != 0 && runs[run_count - 1].flags == flags) {
          runs[run_count - 1].length += page.size();
        } else {
          runs[run_count++] = {offset + at, page.size(), flags, 0};
        }
      }
    }
    return 0;
  }
  Sent send(std::uint32_t, std::uint64_t offset, std::uint64_t length, int) override {
    sent.push_back({offset, length});
    return send_result.err ? send_result : Sent{length, 0, 0};
  }
  int prefetch(std::uint32_t, std::uint64_t offset, std::uint64_t length, std::uint32_t flags,
               std::uint32_t& queued) override {
    prefetch_flags = flags;
    if (prefetch_error) return prefetch_error;
    windows.push_back({offset, length});
    constexpr std::uint64_t kChunk = 256 << 10;
    queued = prefetch_queues ? static_cast<std::uint32_t>((length + kChunk - 1) / kChunk) : 0;
    return 0;
  }
  int set_state(std::uint32_t, std::uint32_t state, std::string_view reason) override {
    states.push_back({state, std::string(reason)});
    return 0;
  }

  // Cookies without an entry in `dirty` write one page at cookie * 4096.
  static std::uint64_t plain_offset(std::uint64_t cookie) { return cookie * 4096; }

  int completed_with(std::uint64_t cookie) const {
    for (const Completion& c : completions) {
      if (c.cookie == cookie) return c.error;
    }
    return -1;
  }
  bool filled(std::uint64_t cookie) const {
    return std::any_of(fills.begin(), fills.end(),
                       [&](const Fill& f) { return f.cookie == cookie; });
  }

  bool can_ask = true;
  int lane_error = 0;
  std::vector<std::uint32_t> lanes;  // begun, or 0: ended
  bool can_send = false;
  Sent send_result;  // if that is an error
  std::vector<Window> sent;
  std::size_t runs_calls = 0;
  bool can_take = true, takes_offered = false;
  LaneEnd lane_end;
  bool can_receive = false, can_fill_early = false;
  std::deque<Received> receive_results;
  std::vector<Fill> received;
  std::vector<Fill> fills;
  std::vector<Completion> completions;
  std::vector<State> states;
  std::vector<Window> windows;
  std::map<std::uint64_t, std::map<std::uint64_t, std::string>> dirty;
  std::set<std::uint64_t> gone;
  std::deque<int> fill_errors;
  int prefetch_error = 0;
  std::uint32_t prefetch_flags = 0;  // of the last call
  bool prefetch_queues = true;
  std::size_t complete_calls = 0;
  std::size_t write_outs = 0;
  std::size_t pushes = 0;
};

// Keeps what it is asked until the test answers; or answers at once.
class FakeStore final : public store::Store {
 public:
  enum class Kind { kRead, kWrite, kZero, kFlush };
  struct Operation {
    Kind kind;
    std::uint64_t offset;
    std::uint64_t length;
    std::byte* into;
    std::byte first;  // of what is written
    store::Done done;
    store::Receiver* receiver = nullptr;
    void* ctx = nullptr;
    store::Urgency urgency = store::Urgency::kBulk;
    store::Sender* sender = nullptr;
    bool behind = false;
  };

  explicit FakeStore(std::uint64_t size) {
    geometry_.size = size;
    geometry_.epoch = 1;
    operations.reserve(1 << 16);
  }

  const store::Geometry& geometry() const override { return geometry_; }
  void read(std::uint64_t offset, std::span<std::byte> into, store::Done done,
            store::Urgency urgency) override {
    ++reads;
    take({Kind::kRead, offset, into.size(), into.data(), {}, done, nullptr, nullptr, urgency});
  }
  void receive(std::uint64_t offset, std::uint64_t length, store::Receiver& receiver, void* ctx,
               store::Done done, store::Urgency urgency) override {
    ++receives;
    take({Kind::kRead, offset, length, nullptr, {}, done, &receiver, ctx, urgency});
  }
  bool can_receive(std::uint64_t) const override { return receivable; }
  bool overtakes() const override { return has_page_lane; }
  std::chrono::microseconds round_trip() const override { return trip; }
  void set_asker(store::Asker* now, std::uint64_t, bool) override { asker = now; }
  void take_answers(std::uint32_t lane) override { answers_of.push_back(lane); }
  void write(std::uint64_t offset, std::span<const std::byte> from, store::Done done) override {
    ++writes;
    take({Kind::kWrite, offset, from.size(), nullptr, from.front(), done});
  }
  void send(std::uint64_t offset, std::uint64_t length, store::Sender& sender,
            store::Done done) override {
    ++sends;
    take({Kind::kWrite,
          offset,
          length,
          nullptr,
          {},
          done,
          nullptr,
          nullptr,
          store::Urgency::kBulk,
          &sender});
  }
  bool can_send(std::uint64_t length) const override { return length >= least_sendable; }
  void zero(std::uint64_t offset, std::uint64_t length, store::Done done) override {
    ++zeros;
    take({Kind::kZero, offset, length, nullptr, {}, done});
  }
  void flush(store::Done done) override {
    ++flushes;
    take({Kind::kFlush, 0, 0, nullptr, {}, done});
  }
  void flush_behind(store::Done done) override {
    ++flushes;
    Operation o = {Kind::kFlush, 0, 0, nullptr, {}, done};
    o.behind = true;
    take(o);
  }
  bool can_flush_behind() const override { return flushes_behind; }

  // Answers the oldest operation of `kind`.
  void answer(Kind kind, int err = 0) {
    const auto it = std::find_if(operations.begin(), operations.end(),
                                 [&](const Operation& o) { return o.kind == kind; });
    ASSERT_NE(it, operations.end()) << "no such operation is outstanding";
    const Operation o = *it;
    operations.erase(it);
    reply(o, err);
  }
  void answer_all(Kind kind, int err = 0) {
    while (count(kind)) answer(kind, err);
  }
  // As when a connection is lost.
  void answer_everything(int err) {
    std::vector<Operation> all;
    all.swap(operations);
    for (const Operation& o : all) reply(o, err);
  }
  std::size_t count(Kind kind) const {
    return static_cast<std::size_t>(std::count_if(
        operations.begin(), operations.end(), [&](const Operation& o) { return o.kind == kind; }));
  }

  store::Geometry geometry_;
  std::vector<Operation> operations;
  bool immediate = false;
  bool receivable = false;
  bool has_page_lane = false;
  std::chrono::microseconds trip{};
  bool flushes_behind = false;
  std::uint64_t least_sendable = ~0ull;
  store::Sender::Sent last_sent;
  store::Asker* asker = nullptr;
  std::vector<std::uint32_t> answers_of;  // lanes of which it shall take them itself
  store::Receiver::Taken last_taken;
  std::size_t receives = 0;
  std::byte content{0x11};
  std::size_t reads = 0, writes = 0, sends = 0, zeros = 0, flushes = 0;

 private:
  void take(const Operation& o) {
    if (immediate) {
      reply(o, 0);
    } else {
      operations.push_back(o);
    }
  }
  void reply(const Operation& o, int err) {
    if (o.receiver && err == 0) {
      last_taken = o.receiver->receive(o.ctx, 0, o.length, 99, std::nullopt);
      if (last_taken.lost || last_taken.err == EAGAIN || last_taken.err == EBADMSG) {
        err = EAGAIN;
      } else if (last_taken.err != 0) {
        err = ECANCELED;
      }
    } else if (o.sender && err == 0) {
      last_sent = o.sender->send(o.offset, o.length, 99);
      if (last_sent.err != 0) err = EAGAIN;
    } else if (o.kind == Kind::kRead && err == 0) {
      std::memset(o.into, static_cast<int>(content), o.length);
    }
    o.done({err, err == 0 ? geometry_.epoch : 0});
  }
};

// One region of 64 MiB in chunks of 256 KiB, connected.
class PagerTest : public testing::Test {
 protected:
  static constexpr std::uint32_t kId = 7;
  static constexpr std::uint64_t kChunk = 256 << 10;
  static constexpr std::uint64_t kSize = 64 << 20;
  using Kind = FakeStore::Kind;

  void SetUp() override { start({}); }

  void start(Pager::Options options) {
    options.now = &now;
    pager = std::make_unique<Pager>(kernel, options, [this](Clock::time_point t) { woken = t; });
    RegionConfig config;
    config.id = kId;
    config.name = "data";
    config.size = kSize;
    config.chunk = chunk;
    config.push_interval = std::chrono::seconds(5);
    pager->add(config);
    pager->connect(kId, store);
  }

  // `op`: an rmem_op, or what makes no sense.
  static rmem_request entry(std::uint64_t cookie, __u8 op, std::uint64_t offset,
                            std::uint64_t length) {
    rmem_request e{};
    e.cookie = cookie;
    e.region_id = kId;
    e.op = op;
    e.offset = e.demand_offset = offset;
    e.length = length;
    return e;
  }
  void fetch(std::uint64_t cookie, std::uint64_t chunk, std::uint8_t flags = 0,
             std::uint32_t tid = 1) {
    rmem_request e = entry(cookie, RMEM_OP_FETCH, chunk * kChunk, kChunk);
    e.flags = flags;
    e.tid = tid;
    pager->accept(e);
  }
  // A page at cookie * 4096, unless the kernel's `dirty` says otherwise.
  void write(std::uint64_t cookie, std::uint8_t flags = 0, std::uint64_t payload = 4096) {
    const std::uint64_t chunk = FakeKernel::plain_offset(cookie) & ~(kChunk - 1);
    rmem_request e = entry(cookie, RMEM_OP_WRITE, chunk, kChunk);
    e.payload = payload;
    e.flags = flags;
    pager->accept(e);
  }
  void hit(std::uint64_t offset, std::uint32_t tid = 1) {
    rmem_request e = entry(0, RMEM_OP_HIT, 0, 0);
    e.demand_offset = offset;
    e.tid = tid;
    pager->accept(e);
  }
  void pass(std::chrono::milliseconds time) {
    fake_now += time;
    pager->tick();
  }

  std::uint32_t chunk = kChunk;
  FakeKernel kernel;
  FakeStore store{kSize};
  std::unique_ptr<Pager> pager;
  Clock::time_point woken = Clock::time_point::max();
};

}  // namespace rmem::pager
