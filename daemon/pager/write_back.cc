// SPDX-License-Identifier: MIT
#include "pager/write_back.hh"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/bytes.hh"
#include "pager/pager.hh"
#include "pager/region.hh"

namespace rmem::pager {
namespace {

constexpr std::size_t kPage = 4096;

// What it takes of kMaxWriting.
std::uint64_t weight(const Request* r) { return r->buffer.empty() ? r->payload : r->buffer.size(); }

bool lies_in(const Request* r, std::uint64_t offset, std::uint64_t length) {
  return length != 0 && offset >= r->offset && offset <= r->end() && length <= r->end() - offset;
}

bool syncs(const Request* r) { return (r->flags & RMEM_REQ_SYNC) != 0; }

// Among several answers for one request, the one that decides.
int gravity(int err) {
  switch (err) {
    case 0:
      return 0;
    case EAGAIN:
      return 1;
    case EBADMSG:
      return 2;
    case ESTALE:
      return 4;
    default:
      return 3;
  }
}

}  // namespace

WriteBack::~WriteBack() { drop_all(); }

void WriteBack::add(Request* r) {
  r->sequence = next_sequence_++;
  if (syncs(r)) ++sync_to_ack_;
  queue_.push_back(r);
}

bool WriteBack::issue() {
  Request* r = queue_.first();
  if (!r || !region_.ready()) return false;
  if (r->op == RMEM_OP_ZERO) {
    issue_zero(r);
    return true;
  }
  if (zeros_ != 0 || held()) return false;
  return issue_write(r);
}

// Nobody waits for any of them, and enough has gone of late. Who waits for one does for those
// in front of it, too.
bool WriteBack::held() const {
  return sync_to_ack_ == 0 && !queue_.empty() && queue_.first()->op == RMEM_OP_WRITE &&
         !region_.push_limit().may(shared_.now());
}

Reactor::Clock::time_point WriteBack::held_until() const {
  return held() ? region_.push_limit().due() : Reactor::Clock::time_point::max();
}

void WriteBack::begin(Request* r) {
  queue_.remove(r);
  writing_.push_back(r);
  r->err = 0;
  r->epoch = r->flush = 0;
  r->wrote = r->epochs_differ = false;
  r->pending = 1;  // held until everything has been issued
  writing_bytes_ += weight(r);
  if (r->op == RMEM_OP_WRITE) region_.push_limit().took(r->payload, shared_.now());
}

// One more call of the store for it.
store::Done WriteBack::begin_part(Request* r) {
  ++r->pending;
  region_.operation_begins();
  return {&WriteBack::write_done, r};
}

void WriteBack::issue_zero(Request* r) {
  begin(r);
  ++zeros_;
  region_.store().zero(r->offset, r->length, begin_part(r));
  given(r);
}

// Without a buffer: from the kernel's pages into the store's socket.
bool WriteBack::directly(const Request* r) const {
  return !r->by_copy && shared_.channel.sends() && region_.store().can_send(r->payload);
}

bool WriteBack::issue_write(Request* r) {
  if (directly(r)) return issue_directly(r);
  const std::uint64_t want =
      std::max<std::uint64_t>(r->whole_buffer ? region_.config().chunk : r->payload, 1);
  if (writing_bytes_ != 0 && writing_bytes_ + want > kMaxWriting) return false;
  // A region with nothing under way may use the last buffers: it must go on.
  if (writing_bytes_ != 0 && shared_.scarce(want)) return false;
  const std::span<std::byte> buffer = shared_.arena.take(want);
  if (buffer.empty()) return false;

  std::uint64_t bytes = 0;
  std::uint32_t run_count = 0;
  const int err = shared_.channel.write_out(r->cookie, buffer, shared_.runs, bytes, run_count);
  if (err != 0) {
    shared_.arena.give_back(buffer);
    switch (err) {
      case ENOMEM:
        region_.pause(Region::kPauseOnNoMemory);
        return false;
      case ENOBUFS:
        if (!r->whole_buffer) {
          r->whole_buffer = true;
          return true;
        }
        break;
      case ENOENT:  // the kernel has given it up
        break;
      default:
        if (region_.may_complain())
          region_.log().error("copying out {} bytes at {}: {}", r->payload, r->offset,
                              std::strerror(err));
    }
    forget(r);
    if (err == ENOENT) {
      release(r);
    } else {
      complete(r, EIO);
    }
    return true;
  }

  r->buffer = buffer;
  begin(r);
  const std::size_t known = std::min<std::size_t>(run_count, shared_.runs.size());
  issued(r, write_runs(r, bytes, shared_.runs.first(known)));
  return true;
}

bool WriteBack::issue_directly(Request* r) {
  if (writing_bytes_ != 0 && writing_bytes_ + weight(r) > kMaxWriting) return false;
  std::uint32_t count = 0;
  const int err = shared_.channel.write_runs(r->cookie, shared_.write_runs, count);
  if (err == ENOENT) {  // the kernel has given it up
    forget(r);
    release(r);
    return true;
  }
  const auto runs = shared_.write_runs.first(
      err == 0 ? std::min<std::size_t>(count, shared_.write_runs.size()) : 0);
  std::uint64_t bytes = 0, pieces = 0;
  for (const rmem_write_run& run : runs) {
    if (run.flags & RMEM_RUN_ZERO) continue;
    bytes += run.length;
    ++pieces;
  }
  // Many short pieces go faster by copy, several at once.
  if (runs.empty() || (pieces != 0 && !region_.store().can_send(bytes / pieces))) {
    r->by_copy = true;
    return true;
  }
  begin(r);
  ++region_.stats().sent;
  issued(r, send_runs(r, runs));
  return true;
}

// Out of the queue, for good.
void WriteBack::forget(Request* r) {
  queue_.remove(r);
  if (syncs(r)) --sync_to_ack_;
}

// The store has been given all of it, unless the kernel's runs are not `sensible`.
void WriteBack::issued(Request* r, bool sensible) {
  ++region_.stats().writes;
  if (!sensible) {
    ++region_.stats().malformed;
    if (region_.may_complain())
      region_.log().error("the kernel's runs for {} bytes at {} make no sense", r->length,
                          r->offset);
    r->err = EIO;
  }
  given(r);
}

void WriteBack::given(Request* r) {
  if ((r->flags & RMEM_REQ_LAST) != 0) last_issued_ = true;
  answered(r);
}

// False when a run lies outside of the request or of what was copied.
bool WriteBack::write_runs(Request* r, std::uint64_t bytes, std::span<const rmem_run> runs) {
  const std::span<const std::byte> copied = r->buffer;
  // The connection may break under the first of several calls; the store itself
  // stays until it has answered.
  store::Store& store = region_.store();
  if (bytes > copied.size()) return false;
  std::uint64_t at = 0;
  for (const rmem_run& run : runs) {
    if (!lies_in(r, run.offset, run.length) || run.length > bytes - at) return false;
    write_run(store, r, run.offset, copied.subspan(at, run.length));
    at += run.length;
  }
  return at == bytes;
}

// False when a run lies outside of the request.
bool WriteBack::send_runs(Request* r, std::span<const rmem_write_run> runs) {
  store::Store& store = region_.store();
  for (const rmem_write_run& run : runs) {
    if (!lies_in(r, run.offset, run.length)) return false;
    r->wrote = true;
    if (run.flags & RMEM_RUN_ZERO) {
      store.zero(run.offset, run.length, begin_part(r));
    } else {
      store.send(run.offset, run.length, *this, begin_part(r));
    }
  }
  return true;
}

store::Sender::Sent WriteBack::send(std::uint64_t offset, std::uint64_t length, int socket) {
  const auto sent = shared_.channel.send(region_.config().id, offset, length, socket);
  return {sent.bytes, sent.err == ECONNRESET ? sent.socket_err : sent.err};
}

// Pages full of zeros become holes; what lies between them goes in one piece.
void WriteBack::write_run(store::Store& store, Request* r, std::uint64_t offset,
                          std::span<const std::byte> bytes) {
  std::size_t begin = 0;
  bool zero = all_zeros(bytes.first(std::min(bytes.size(), kPage)));
  while (begin < bytes.size()) {
    std::size_t end = begin;
    bool next_zero = zero;
    do {
      end = std::min(end + kPage, bytes.size());
      if (end == bytes.size()) break;
      next_zero = all_zeros(bytes.subspan(end, std::min(bytes.size() - end, kPage)));
    } while (next_zero == zero);

    r->wrote = true;
    if (zero) {
      store.zero(offset + begin, end - begin, begin_part(r));
    } else {
      store.write(offset + begin, bytes.subspan(begin, end - begin), begin_part(r));
    }
    begin = end;
    zero = next_zero;
  }
}

void WriteBack::write_done(void* request, const store::Outcome& outcome) {
  auto* r = static_cast<Request*>(request);
  WriteBack& self = r->region->write_back();
  self.region_.operation_ends();
  self.note(r, outcome);
  self.answered(r);
  self.shared_.pager.kick(self.region_);
}

void WriteBack::note(Request* r, const store::Outcome& outcome) {
  if (gravity(outcome.err) > gravity(r->err)) r->err = outcome.err;
  if (outcome.err != 0) return;
  r->wrote = true;
  if (r->epoch != 0 && r->epoch != outcome.epoch) r->epochs_differ = true;
  r->epoch = outcome.epoch;
}

void WriteBack::answered(Request* r) {
  if (--r->pending != 0) return;
  writing_.remove(r);
  writing_bytes_ -= weight(r);
  if (!r->buffer.empty()) shared_.arena.give_back(r->buffer);
  r->buffer = {};
  if (region_.gone()) return release(r);  // and none of the counts matters now
  if (syncs(r)) --sync_to_ack_;

  switch (r->err) {
    case 0:
      r->tries = 0;
      if (r->epochs_differ) return again(r);
      if (Flush* const flush = flush_of(r)) {
        flush->covered.push_back(r);
        ++covered_;
        return;
      }
      if (acked_.empty()) window_began_ = shared_.now();
      acked_.push_back(r);
      acked_bytes_ += r->length;
      if (syncs(r)) ++sync_acked_;
      return;
    case EAGAIN:
      if (region_.ready()) region_.pause(Region::kPauseOnAgain);
      return again(r);
    case EBADMSG:
      ++region_.stats().damaged;
      if (++r->tries < kMaxDamaged) return again(r);
      return complete(r, EIO);
    case ESTALE:
      region_.stale();
      return again(r);
    default:
      if (region_.may_complain())
        region_.log().error("writing {} bytes at {}: {}", r->length, r->offset,
                            std::strerror(r->err));
      return complete(r, r->err);
  }
}

// Back into the queue, at the place that its age gives it. Its bytes will be taken
// anew.
void WriteBack::again(Request* r) {
  ++region_.stats().repeated;
  if (r->op == RMEM_OP_ZERO) --zeros_;
  if (syncs(r)) ++sync_to_ack_;
  queue_.insert_sorted(r);
}

// Null: none that is under way.
WriteBack::Flush* WriteBack::flush_of(const Request* r) {
  for (Flush& one : flushes_)
    if (r->flush != 0 && one.number == r->flush) return &one;
  return nullptr;
}

Reactor::Clock::time_point WriteBack::flush_due() const {
  if (acked_.empty() || flushes_under_way_ != 0) return Reactor::Clock::time_point::max();
  return window_began_ + kMaxWindowAge;
}

bool WriteBack::window_is_due() const {
  if (acked_.empty()) return false;
  const bool nothing_to_come = queue_.empty() && writing_.empty();
  const bool fsync_waits = sync_acked_ != 0 && sync_to_ack_ == 0;
  return nothing_to_come || fsync_waits || zeros_ != 0 || acked_bytes_ >= kMaxWindow ||
         shared_.now() >= flush_due();
}

void WriteBack::flush_if_due() {
  if (!region_.ready()) return;
  if (last_issued_ && region_.store().can_flush_behind()) {
    if (flushes_under_way_ < kMaxFlushes) flush(true);
  } else if (flushes_under_way_ == 0 && window_is_due()) {
    flush(false);
  }
}

// `behind`: covers what is being written, too.
void WriteBack::flush(bool behind) {
  last_issued_ = false;
  const std::uint64_t number = ++last_flush_;
  bool covers = !acked_.empty();
  for (Request* r = behind ? writing_.first() : nullptr; r != nullptr; r = r->next) {
    if (flush_of(r) != nullptr) continue;
    r->flush = number;
    covers = true;
  }
  if (!covers) return;
  Flush* slot = flushes_.data();
  while (slot->number != 0) ++slot;
  slot->write_back = this;
  slot->number = number;
  covered_ += acked_.size();
  slot->covered.splice_back(acked_);
  acked_bytes_ = 0;
  sync_acked_ = 0;
  ++flushes_under_way_;
  ++region_.stats().flushes;
  region_.operation_begins();
  const store::Done done{&WriteBack::flush_done, slot};
  behind ? region_.store().flush_behind(done) : region_.store().flush(done);
}

void WriteBack::flush_done(void* flush, const store::Outcome& outcome) {
  Flush& done = *static_cast<Flush*>(flush);
  WriteBack& self = *done.write_back;
  self.region_.operation_ends();
  --self.flushes_under_way_;
  done.number = 0;
  self.covered_ -= done.covered.size();
  self.flushed(done.covered, outcome);
  self.shared_.pager.kick(self.region_);
}

void WriteBack::flushed(List& covered, const store::Outcome& outcome) {
  if (region_.gone()) return;  // they have been dropped
  switch (outcome.err) {
    case 0:
    case ENOSPC:
    case EIO:
    case EROFS:
      break;
    case EAGAIN:
    case EBADMSG:
    case ESTALE:
      if (outcome.err == ESTALE) {
        region_.stale();
      } else if (region_.ready()) {
        region_.pause(Region::kPauseOnAgain);
      }
      while (Request* r = covered.pop_front()) again(r);
      return;
    default:  // told as EIO
      break;
  }
  if (outcome.err != 0) region_.log().error("flush: {}", std::strerror(outcome.err));

  std::size_t count = 0;
  while (Request* r = covered.pop_front()) {
    if (outcome.err == 0 && r->wrote && r->epoch != outcome.epoch) {
      // The store began anew between acknowledgement and flush: the bytes may
      // be lost.
      region_.pause(Region::kPauseOnAgain);
      again(r);
      continue;
    }
    if (r->op == RMEM_OP_ZERO) --zeros_;
    shared_.cookies[count++] = r->cookie;
    release(r);
    if (count == shared_.cookies.size()) {
      complete_batch(shared_.cookies.first(count), outcome.err);
      count = 0;
    }
  }
  complete_batch(shared_.cookies.first(count), outcome.err);
}

void WriteBack::complete_batch(std::span<std::uint64_t> cookies, int err) {
  if (cookies.empty()) return;
  const bool known = err == 0 || err == ENOSPC || err == EROFS || err == ESTALE;
  const int told = known ? err : EIO;
  if (told != 0) region_.stats().refused += cookies.size();
  int r = 0;
  for (int attempt = 0; attempt < 3; ++attempt) {
    r = shared_.channel.complete(cookies, told);
    if (r != ENOMEM) break;
  }
  // Not told, the kernel takes the pages for dirty once its deadline has passed:
  // late, but nothing is lost.
  if (r != 0 && r != ENOENT) region_.log().error("completing writes: {}", std::strerror(r));
}

void WriteBack::complete(Request* r, int err) {
  if (r->op == RMEM_OP_ZERO) --zeros_;
  complete_batch({&r->cookie, 1}, err);
  release(r);
}

void WriteBack::release(Request* r) { shared_.pool.give_back(r); }

void WriteBack::drop_all() {
  for (List* list : {&queue_, &acked_})
    while (Request* r = list->pop_front()) release(r);
  for (Flush& flush : flushes_)
    while (Request* r = flush.covered.pop_front()) release(r);
  covered_ = 0;
}

}  // namespace rmem::pager
