// SPDX-License-Identifier: MIT
// The module and the programs above it: pages of one region, tasks that read, write,
// sync and drop them, and the promises that are checked whenever bytes arrive.
#pragma once

#include <linux/rmem.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <deque>
#include <map>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "control/kernel.hh"
#include "kchan/kernel_channel.hh"
#include "pager/pager.hh"
#include "simulation/host.hh"

namespace rmem::sim {

inline constexpr std::uint64_t kPage = 4096;
inline constexpr std::uint64_t kPages = 48;
inline constexpr std::uint64_t kSize = kPages * kPage;
inline constexpr std::uint32_t kChunk = 16 << 10;
inline constexpr std::uint64_t kChunkPages = kChunk / kPage;

// A page is `version` and its place, over and over: whoever sees it can tell whether it
// is whole, whose it is, and how old. Version 0 is zeros.
inline void paint(std::byte* page, std::uint64_t number, std::uint64_t version) {
  const std::uint64_t word = version == 0 ? 0 : version << 16 | (number + 1);
  for (std::size_t i = 0; i < kPage; i += sizeof word) std::memcpy(page + i, &word, sizeof word);
}
// Nothing if it is torn, or another page.
inline std::optional<std::uint64_t> version_of(const std::byte* page, std::uint64_t number) {
  std::uint64_t word, other;
  std::memcpy(&word, page, sizeof word);
  for (std::size_t i = 0; i < kPage; i += sizeof word) {
    std::memcpy(&other, page + i, sizeof other);
    if (other != word) return std::nullopt;
  }
  if (word == 0) return 0;
  if ((word & 0xffff) != number + 1) return std::nullopt;
  return word >> 16;
}

class Kernel final : public kchan::KernelChannel, public control::Kernel {
 public:
  explicit Kernel(Reactor& reactor)
      : reactor_(reactor),
        deliver_(reactor, [this] { deliver(); }),
        wake_(reactor, [this] { wake_all(); }) {
    Host& host = *Host::current();
    receives_ = host.chance.one_in(2);
    sends_ = host.chance.one_in(2);
  }

  // What broke a promise; the first.
  std::string violation;
  void violated(const std::string& what) {
    if (violation.empty()) violation = what;
  }

  // --- daemons: `pager` serves from now on, or nobody does
  void attend(pager::Pager* pager) {
    const Host::Safe safe;
    pager_ = pager;
    serving_ = false;
    ring_.clear();
  }
  // Who calls is being killed: it does nothing any more.
  void die() {
    const Host::Safe safe;
    pager_ = nullptr;
    serving_ = false;
    ring_.clear();
    // Its cookies end with it. What they were about is asked of the next one.
    for (auto& [cookie, r] : requests_) {
      if (r.write) {
        for (const auto& [page, version] : r.copied) pages_[page].busy = false;
        for (const std::uint64_t page : r.pages) pages_[page].busy = false;
        chunk_writes_[r.chunk] = 0;
      } else {
        fetches_[r.chunk] = 0;
      }
    }
    requests_.clear();
  }

  // --- programs. Each calls back once.
  using Then = std::function<void(int err)>;
  void touch(std::uint64_t page, bool write, Then then) {
    const Host::Safe safe;
    if (!pages_[page].resident) {
      waiting_[page / kChunkPages].push_back({page, write, std::move(then)});
      return fault(page / kChunkPages);
    }
    use(page, write);
    then(0);
  }
  void sync(Then then) {
    const Host::Safe safe;
    Sync one;
    one.then = std::move(then);
    for (std::uint64_t page = 0; page < kPages; ++page)
      if (pages_[page].version != pages_[page].durable) one.wants[page] = pages_[page].version;
    syncs_.push_back(std::move(one));
    push_dirty(RMEM_REQ_SYNC);
    settle_syncs();
  }
  // Clean pages go, as under memory pressure.
  void drop(bool all) {
    for (std::uint64_t page = 0; page < kPages; ++page) {
      Page& p = pages_[page];
      if (!p.resident || p.busy || p.version != p.durable) continue;
      if (all || Host::current()->chance.one_in(3)) p.resident = false;
    }
  }
  bool clean() const {
    for (const Page& p : pages_)
      if (p.version != p.durable) return false;
    return true;
  }
  // What the disk must have after a reset of its machine.
  void check_disk(const std::vector<std::byte>& disk, bool all) {
    for (std::uint64_t page = 0; page < kPages; ++page) {
      const auto there = version_of(&disk[page * kPage], page);
      const Page& p = pages_[page];
      const std::uint64_t least = all ? p.version : p.durable;
      if (!there)
        violated("page " + std::to_string(page) + " is torn on the disk");
      else if (*there < least || *there > p.version)
        violated("page " + std::to_string(page) + " has version " + std::to_string(*there) +
                 " on the disk, where at least " + std::to_string(least) + " was promised and " +
                 std::to_string(p.version) + " written");
    }
  }
  std::size_t waiting() const {
    std::size_t tasks = syncs_.size();
    for (const auto& [chunk, all] : waiting_) tasks += all.size();
    return tasks;
  }

  // --- kchan::KernelChannel
  int serve(std::uint32_t) override {
    const Host::Safe safe;
    serving_ = true;
    // Asked before, of a daemon that is dead.
    for (std::uint64_t chunk = 0; chunk < kPages / kChunkPages; ++chunk)
      if (!waiting_[chunk].empty()) fault(chunk, RMEM_REQ_AGAIN);
    if (!syncs_.empty()) push_dirty(RMEM_REQ_SYNC | RMEM_REQ_AGAIN);
    return 0;
  }
  int push(std::uint32_t) override {
    const Host::Safe safe;
    push_dirty(0);
    return 0;
  }
  int fill(std::uint64_t cookie, std::uint64_t offset, std::span<const std::byte> bytes,
           std::uint32_t) override {
    const Host::Safe safe;
    Host::current()->note(cookie);
    const auto found = requests_.find(cookie);
    if (found == requests_.end()) return ENOENT;
    Request& r = found->second;
    if (r.write || offset != 0 || bytes.size() != r.bytes.size()) {
      violated("a fill that does not fit");
      return EINVAL;
    }
    std::copy(bytes.begin(), bytes.end(), r.bytes.begin());
    filled(cookie);
    return 0;
  }
  int fill_zeros(std::uint64_t cookie, std::uint64_t length, std::uint32_t flags) override {
    return fill(cookie, 0, std::vector<std::byte>(length), flags);
  }
  bool receives() const override { return receives_; }
  Received receive(std::uint64_t cookie, std::uint64_t offset, std::uint64_t length, int socket,
                   std::uint32_t, const std::optional<std::uint32_t>&) override {
    const Host::Safe safe;
    const auto found = requests_.find(cookie);
    if (found == requests_.end() || found->second.write) return {0, ENOENT, 0};
    Request& r = found->second;
    if (offset + length != r.bytes.size()) {
      violated("a receive that does not fit");
      return {0, EINVAL, 0};
    }
    const ssize_t got = ::recv(socket, r.bytes.data() + offset, length, MSG_DONTWAIT);
    if (got == 0) return {0, EPIPE, 0};
    if (got < 0) return {0, errno == EAGAIN ? EAGAIN : ECONNRESET, errno};
    const auto bytes = static_cast<std::uint64_t>(got);
    if (bytes < length) return {bytes, EAGAIN, 0};
    Host::current()->note(cookie);
    filled(cookie);
    return {bytes, 0, 0};
  }
  bool asks() const override { return false; }
  int lane(std::uint32_t, const Lane&, bool&) override { return ENOTTY; }
  LaneEnd end_lane(std::uint32_t, std::span<std::byte>) override { return {}; }
  int complete(std::span<const std::uint64_t> cookies, int error) override {
    const Host::Safe safe;
    for (const std::uint64_t cookie : cookies) completed(cookie, error);
    return 0;
  }
  int write_out(std::uint64_t cookie, std::span<std::byte> into, std::span<rmem_run> runs,
                std::uint64_t& bytes, std::uint32_t& count) override {
    const Host::Safe safe;
    Request* r = writing(cookie);
    if (r == nullptr) return ENOENT;
    if (into.size() < r->pages.size() * kPage) return ENOBUFS;
    bytes = count = 0;
    r->copied.clear();
    for (const std::uint64_t page : r->pages) {
      paint(into.data() + bytes, page, pages_[page].version);
      r->copied[page] = pages_[page].version;
      bytes += kPage;
      if (count != 0 && runs[count - 1].offset + runs[count - 1].length == page * kPage)
        runs[count - 1].length += kPage;
      else
        runs[count++] = {page * kPage, kPage};
    }
    return 0;
  }
  bool sends() const override { return sends_; }
  int write_runs(std::uint64_t cookie, std::span<rmem_write_run> runs,
                 std::uint32_t& count) override {
    const Host::Safe safe;
    Request* r = writing(cookie);
    if (r == nullptr) return ENOENT;
    count = 0;
    r->copied.clear();
    for (const std::uint64_t page : r->pages) {
      r->copied[page] = pages_[page].version;
      if (count != 0 && runs[count - 1].offset + runs[count - 1].length == page * kPage)
        runs[count - 1].length += kPage;
      else
        runs[count++] = {page * kPage, kPage, 0, 0};
    }
    return 0;
  }
  Sent send(std::uint32_t, std::uint64_t offset, std::uint64_t length, int socket) override {
    const Host::Safe safe;
    std::vector<std::byte> bytes;
    for (std::uint64_t page = offset / kPage; page * kPage < offset + length; ++page) {
      bytes.resize(bytes.size() + kPage);
      paint(&bytes[bytes.size() - kPage], page, pages_[page].version);
    }
    const ssize_t sent =
        ::send(socket, bytes.data() + offset % kPage, length, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) return {0, errno == EAGAIN ? EAGAIN : ECONNRESET, errno};
    const auto taken = static_cast<std::uint64_t>(sent);
    return {taken, taken < length ? EAGAIN : 0, 0};
  }
  int prefetch(std::uint32_t, std::uint64_t offset, std::uint64_t length, std::uint32_t,
               std::uint32_t& queued) override {
    const Host::Safe safe;
    queued = 0;
    if (offset >= kSize || length > kSize - offset) {
      violated("a prefetch beyond the end");
      return EINVAL;
    }
    for (std::uint64_t chunk = offset / kChunk; chunk * kChunk < offset + length; ++chunk)
      if (fetches_[chunk] == 0 && lacks(chunk)) {
        ask_fetch(chunk, RMEM_REQ_PREFETCH);
        ++queued;
      }
    return 0;
  }
  int set_state(std::uint32_t, std::uint32_t state, std::string_view reason) override {
    if (state == RMEM_STATE_FAILED) violated("the region failed: " + std::string(reason));
    Host::current()->note(state);
    return 0;
  }

  // --- control::Kernel
  Result<std::vector<kchan::RegionInfo>> list() override {
    const Host::Safe safe;
    std::vector<kchan::RegionInfo> all;
    if (info_) all.push_back(*info_);
    return all;
  }
  Result<kchan::RegionInfo> get(const std::string& name) override {
    const Host::Safe safe;
    if (info_ && info_->name == name) return *info_;
    return Status(Code::kNotFound, "region " + name + ": no such region", {}, ENOENT);
  }
  Result<kchan::Netlink::Made> make(const kchan::RegionInfo& wanted) override {
    const Host::Safe safe;
    info_ = wanted;
    info_->id = 1;
    info_->writer.fill(0x77);
    return kchan::Netlink::Made{info_->id, info_->writer};
  }
  Status set_blob(std::uint32_t, const std::string& blob) override {
    const Host::Safe safe;
    info_->blob = blob;
    return Status();
  }
  Status unmake(std::uint32_t) override {
    info_.reset();
    return Status();
  }
  Result<std::uint64_t> unmake_by_force(std::uint32_t) override { return std::uint64_t{0}; }
  void sync(const std::string&, Finished done) override {
    sync([done = std::move(done)](int err) {
      done(err == 0 ? Status() : Status::from_errno(err, "fsync"));
    });
  }
  void drop(const std::string&, Finished done) override {
    drop(true);
    done(Status());
  }

 private:
  struct Page {
    bool resident = false;
    bool busy = false;          // part of a write under way
    std::uint64_t version = 0;  // as programs have written it
    std::uint64_t durable = 0;  // as a completed write has it
  };
  struct Request {
    bool write = false;
    std::uint64_t chunk = 0;
    std::uint8_t flags = 0;
    std::vector<std::byte> bytes;                   // of a fetch,
    bool stale = false;                             // which a write has overtaken
    std::vector<std::uint64_t> pages;               // of a write,
    std::map<std::uint64_t, std::uint64_t> copied;  // as they were when it was copied
  };
  struct Waiter {
    std::uint64_t page;
    bool write;
    Then then;
  };
  struct Sync {
    std::map<std::uint64_t, std::uint64_t> wants;  // versions by page
    int err = 0;
    Then then;
  };

  void use(std::uint64_t page, bool write) {
    if (write) ++pages_[page].version;
    Host::current()->note(page << 1 | write);
  }
  bool lacks(std::uint64_t chunk) const {
    for (std::uint64_t i = 0; i < kChunkPages; ++i)
      if (!pages_[chunk * kChunkPages + i].resident) return true;
    return false;
  }
  void fault(std::uint64_t chunk, std::uint8_t flags = 0) {
    if (!serving_) return;
    if (fetches_[chunk] == 0) return ask_fetch(chunk, flags);
    Request& r = requests_.at(fetches_[chunk]);
    if (!(r.flags & RMEM_REQ_PREFETCH)) return;
    r.flags = 0;
    rmem_request entry = entry_of(fetches_[chunk], RMEM_OP_FETCH, chunk);
    entry.flags = RMEM_REQ_JOINED;
    publish(entry);
  }
  static rmem_request entry_of(std::uint64_t cookie, rmem_op op, std::uint64_t chunk) {
    rmem_request entry = {};
    entry.cookie = cookie;
    entry.region_id = 1;
    entry.op = static_cast<__u8>(op);
    entry.offset = entry.demand_offset = chunk * kChunk;
    entry.length = kChunk;
    entry.tid = 1;
    return entry;
  }
  void ask_fetch(std::uint64_t chunk, std::uint8_t flags) {
    const std::uint64_t cookie = ++last_cookie_;
    Request& r = requests_[cookie];
    r.chunk = chunk;
    r.flags = flags;
    r.bytes.resize(kChunk);
    fetches_[chunk] = cookie;
    rmem_request entry = entry_of(cookie, RMEM_OP_FETCH, chunk);
    entry.flags = flags;
    publish(entry);
  }
  void push_dirty(std::uint8_t flags) {
    if (!serving_) return;
    std::vector<std::uint64_t> chunks;
    for (std::uint64_t chunk = 0; chunk < kPages / kChunkPages; ++chunk) {
      if (chunk_writes_[chunk] != 0) {
        // Under way: what fsync waits for may not be hurried any more, but what
        // was written since is asked for when that is over.
        again_flags_[chunk] |= flags | kAgain;
      } else {
        chunks.push_back(chunk);
      }
    }
    for (const std::uint64_t chunk : chunks) {
      // A hint, which may be missing, or wrong.
      const bool last = (chunk == chunks.back()) != Host::current()->chance.one_in(6);
      ask_write(chunk, flags & RMEM_REQ_SYNC && last ? flags | RMEM_REQ_LAST : flags);
    }
  }
  void ask_write(std::uint64_t chunk, unsigned flags) {
    std::vector<std::uint64_t> pages;
    for (std::uint64_t i = 0; i < kChunkPages; ++i) {
      const std::uint64_t page = chunk * kChunkPages + i;
      if (pages_[page].version != pages_[page].durable) pages.push_back(page);
    }
    if (pages.empty()) return;
    const std::uint64_t cookie = ++last_cookie_;
    Request& r = requests_[cookie];
    r.write = true;
    r.chunk = chunk;
    r.pages = pages;
    for (const std::uint64_t page : pages) pages_[page].busy = true;
    chunk_writes_[chunk] = cookie;
    rmem_request entry = entry_of(cookie, RMEM_OP_WRITE, chunk);
    entry.payload = pages.size() * kPage;
    entry.flags = static_cast<__u8>(flags);
    publish(entry);
  }
  Request* writing(std::uint64_t cookie) {
    const auto found = requests_.find(cookie);
    return found == requests_.end() || !found->second.write ? nullptr : &found->second;
  }

  // The bytes of a fetch have come.
  void filled(std::uint64_t cookie) {
    if (Request& again = requests_.at(cookie); again.stale) {
      again.stale = false;
      rmem_request entry = entry_of(cookie, RMEM_OP_FETCH, again.chunk);
      entry.flags = again.flags | RMEM_REQ_AGAIN;
      return publish(entry);
    }
    const Request r = std::move(requests_.at(cookie));
    requests_.erase(cookie);
    fetches_[r.chunk] = 0;
    for (std::uint64_t i = 0; i < kChunkPages; ++i) {
      const std::uint64_t number = r.chunk * kChunkPages + i;
      Page& page = pages_[number];
      if (page.resident) continue;
      const auto there = version_of(&r.bytes[i * kPage], number);
      if (!there)
        violated("page " + std::to_string(number) + " arrived torn, or as another");
      else if (*there != page.version)
        violated("page " + std::to_string(number) + " arrived as version " +
                 std::to_string(*there) + ", was written and clean as " +
                 std::to_string(page.version));
      page.resident = true;
    }
    arrived_.push_back(r.chunk);
    wake_.schedule();
  }
  // Those who wait go on, but not from within the daemon.
  void wake_all() {
    const Host::Safe safe;
    const auto chunks = std::exchange(arrived_, {});
    for (const std::uint64_t chunk : chunks) {
      const auto all = std::exchange(waiting_[chunk], {});
      for (const Waiter& one : all) {
        if (!pages_[one.page].resident) {
          waiting_[chunk].push_back(one);
          fault(chunk);
          continue;
        }
        use(one.page, one.write);
        one.then(0);
      }
    }
    settle_syncs();
  }
  void completed(std::uint64_t cookie, int error) {
    const auto found = requests_.find(cookie);
    if (found == requests_.end()) return;
    Host::current()->note(cookie << 8 | static_cast<unsigned>(error));
    const Request r = std::move(found->second);
    requests_.erase(found);
    if (!r.write) {
      fetches_[r.chunk] = 0;
      if (error == 0) violated("a fetch was completed without its bytes");
      // A prefetch that is given up, though somebody has come meanwhile.
      if (!waiting_[r.chunk].empty()) {
        if (error != ECANCELED && error != 0)
          violated("a read has failed: " + std::string(std::strerror(error)));
        fault(r.chunk, RMEM_REQ_AGAIN);
      }
      return;
    }
    chunk_writes_[r.chunk] = 0;
    for (const std::uint64_t page : r.pages) pages_[page].busy = false;
    if (error == 0) {
      for (const std::uint64_t page : r.pages)
        if (!r.copied.count(page)) violated("a write was completed that nobody has copied");
      for (const auto& [page, version] : r.copied) pages_[page].durable = version;
      // What they had before may be on its way, and they may be dropped until it comes.
      if (fetches_[r.chunk] != 0) requests_.at(fetches_[r.chunk]).stale = true;
    } else if (error != EAGAIN) {
      // Whoever waits for these pages hears of it; they stay dirty.
      for (Sync& one : syncs_)
        for (const std::uint64_t page : r.pages)
          if (one.wants.count(page)) one.err = error;
    }
    const std::uint8_t again = std::exchange(again_flags_[r.chunk], std::uint8_t{0});
    if (again != 0 || error == EAGAIN) ask_write(r.chunk, again & ~kAgain);
    wake_.schedule();
  }
  void settle_syncs() {
    std::vector<Sync> over;
    for (auto one = syncs_.begin(); one != syncs_.end();) {
      bool done = true;
      for (const auto& [page, version] : one->wants) done &= pages_[page].durable >= version;
      if (done || one->err != 0) {
        over.push_back(std::move(*one));
        one = syncs_.erase(one);
      } else {
        ++one;
      }
    }
    for (Sync& one : over) one.then(one.err);
  }

  // Into the ring; the daemon is told a little later.
  void publish(const rmem_request& entry) {
    ring_.push_back(entry);
    if (!deliver_.armed()) deliver_.arm(Host::current()->chance.between(0us, 200us));
  }
  void deliver() {
    try {
      while (pager_ != nullptr && !ring_.empty() && pager_->room()) {
        const rmem_request entry = ring_.front();
        ring_.pop_front();
        pager_->accept(entry);
      }
      if (pager_ != nullptr) pager_->pump();
    } catch (const std::bad_alloc&) {
      // The daemon's end, not ours.
      reactor_.post([] { throw std::bad_alloc(); });
    }
  }

  static constexpr std::uint8_t kAgain = 0x80;

  Reactor& reactor_;
  bool receives_, sends_;
  pager::Pager* pager_ = nullptr;
  bool serving_ = false;
  std::optional<kchan::RegionInfo> info_;
  std::array<Page, kPages> pages_;
  std::uint64_t last_cookie_ = 0;
  std::map<std::uint64_t, Request> requests_;
  std::map<std::uint64_t, std::uint64_t> fetches_;       // cookie by chunk; 0: none
  std::map<std::uint64_t, std::uint64_t> chunk_writes_;  // likewise
  std::map<std::uint64_t, std::uint8_t> again_flags_;
  std::map<std::uint64_t, std::vector<Waiter>> waiting_;
  std::vector<std::uint64_t> arrived_;
  std::deque<Sync> syncs_;
  std::deque<rmem_request> ring_;
  Reactor::Timer deliver_;
  Reactor::TurnEnd wake_;
};

}  // namespace rmem::sim
