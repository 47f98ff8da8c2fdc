// SPDX-License-Identifier: MIT
#include "pager/fetcher.hh"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "pager/pager.hh"
#include "pager/region.hh"

namespace rmem::pager {
namespace {

bool ahead(const Request* r) { return (r->flags & RMEM_REQ_PREFETCH) != 0; }

// Where only so much may be resident, what is fetched ahead must not drive out
// what its readers have not used yet.
std::uint64_t longest_window(const RegionConfig& config) {
  if (config.resident_limit == 0) return ReadAhead::kMaxWindow;
  return std::min(ReadAhead::kMaxWindow, std::bit_floor(config.resident_limit / 8));
}

}  // namespace

Fetcher::Fetcher(Region& region, Shared& shared)
    : region_(region),
      shared_(shared),
      most_reading_(std::clamp(kReadingBytes / region.config().chunk, kLeastReading, kMostReading)),
      most_ahead_(std::clamp(kReadingBytes / region.config().chunk, kLeastReadingAhead,
                             most_reading_ / 4 * 3)),
      read_ahead_(region.config().size, region.config().chunk, longest_window(region.config())),
      reserve_(new std::byte[region.config().chunk]) {}

Fetcher::~Fetcher() { drop_all(); }

void Fetcher::add(Request* r, std::uint32_t lane) {
  if (ahead(r)) {
    r->mark = read_ahead_.take_mark(r->offset);
    ahead_.push_back(r);
    return;
  }
  // Of another lane the answers are lost.
  if (lane == 0 || lane != lane_) {
    if (!page_first(r)) return demand_.push_back(r);
    r->flags |= RMEM_REQ_PREFETCH;
    ahead_.push_front(r);
    return send_scout(r, r->demand);
  }
  ++region_.stats().fetches;
  ++region_.stats().asked;
  asked_.push_back(r);
}

bool Fetcher::unasked(std::uint64_t cookie) {
  Request* r = asked_.find(cookie);
  if (!r) return false;
  asked_.remove(r);
  demand_.push_back(r);
  return true;
}

void Fetcher::joined(std::uint64_t cookie, std::uint64_t demand) {
  if (Request* r = ahead_.find(cookie)) {
    read_ahead_.on_late(r->offset);
    if (page_first(r)) {
      ahead_.remove(r);
      ahead_.push_front(r);
      return send_scout(r, demand);
    }
    ++region_.stats().prefetches;
    return promote(r, false);
  }
  std::uint64_t in_front = 0;
  for (Request* r = reading_.first(); r; r = r->next) {
    if (!ahead(r)) continue;
    if (r->cookie != cookie) {
      in_front += r->length;
      continue;
    }
    read_ahead_.on_late(r->offset);
    // What is about to come needs no scout.
    if (in_front >= r->length && page_first(r)) return send_scout(r, demand);
    promote(r, true);
    if (in_front >= kFarBack && region_.ready() && region_.store().overtakes()) ask_twice(r);
    return;
  }
}

// Somebody waits for all of it.
void Fetcher::promote(Request* r, bool at_store) {
  r->flags &= static_cast<std::uint8_t>(~RMEM_REQ_PREFETCH);
  if (at_store) {
    --reading_ahead_;
  } else {
    ahead_.remove(r);
    demand_.push_back(r);
  }
}

bool Fetcher::far() const { return region_.ready() && region_.store().round_trip() >= kFar; }

bool Fetcher::page_first(const Request* r) const {
  if (r->twin || r->length < kLeastScouted || !shared_.channel.fills_early() || !far())
    return false;
  if (!region_.store().overtakes()) return false;
  // The first chunk meets a connection whose window is a fraction of it.
  return reading_ahead_ > 0 || whole_took_ == whole_took_.zero() ||
         whole_took_ * 4 >= region_.store().round_trip() * 5;
}

void Fetcher::send_scout(Request* r, std::uint64_t demand) {
  Request* scout = twin_of(r);
  if (!scout) return;
  scout->flags &= static_cast<std::uint8_t>(~RMEM_REQ_PREFETCH);
  scout->scout = scout->by_copy = true;
  scout->mark = false;
  scout->offset = std::clamp(demand / kScouted * kScouted, r->offset, r->end() - 1);
  scout->length = std::min(kScouted, r->end() - scout->offset);
  demand_.push_back(scout);
}

void Fetcher::scout_over(Request* scout, const store::Outcome& outcome) {
  Request* const r = scout->twin;
  int err = outcome.err;
  if (r && !scout->overtaken && err == 0) {
    err = shared_.channel.fill(scout->cookie, scout->offset - r->offset,
                               scout->buffer.first(scout->length), RMEM_FILL_EARLY);
    if (err == 0) ++region_.stats().early;
  }
  const bool failed = r && !scout->overtaken && err != 0 && err != ENOENT;
  release(scout);
  if (!failed || !ahead(r)) return;
  // Then it is the chunk that is waited for, and tells what is wrong.
  promote(r, !ahead_.find(r->cookie));
}

Request* Fetcher::ask_twice(Request* r) {
  Request* twin = twin_of(r);
  if (!twin) return nullptr;
  ++region_.stats().repeated;
  demand_.push_back(twin);
  return twin;
}

Request* Fetcher::twin_of(Request* r) {
  Request* twin = shared_.pool.take();
  if (!twin) return nullptr;
  twin->region = r->region;
  twin->cookie = r->cookie;
  twin->offset = r->offset;
  twin->length = r->length;
  twin->op = r->op;
  twin->flags = r->flags;
  twin->mark = r->mark;
  twin->twin = r;
  r->twin = twin;
  return twin;
}

bool Fetcher::may_hedge(const Request* r) const {
  return r->urgent && !r->hedged && !r->twin && r->length <= kHedged;
}

std::chrono::microseconds Fetcher::late() const {
  return std::max<std::chrono::microseconds>(kLateTrips * region_.store().round_trip(), kLate);
}

Region::Clock::time_point Fetcher::hedge_due() const {
  constexpr auto kNever = Region::Clock::time_point::max();
  if (!shared_.hedge || reading_.size() == reading_ahead_ || !region_.ready()) return kNever;
  const Stats& stats = region_.stats();
  if ((stats.hedged + 1) * kHedgeOneIn + stats.prefetches > stats.fetches) return kNever;
  if (!region_.store().overtakes()) return kNever;
  // In the order in which they were asked for.
  for (const Request* r = reading_.first(); r; r = r->next)
    if (may_hedge(r)) return r->asked + late();
  return kNever;
}

void Fetcher::hedge(Region::Clock::time_point now) {
  while (hedge_due() <= now) {
    Request* r = reading_.first();
    while (!may_hedge(r)) r = r->next;
    Request* twin = ask_twice(r);
    if (!twin) return;
    r->hedged = twin->hedged = twin->hedge = true;
    ++region_.stats().hedged;
  }
}

void Fetcher::missed(std::uint64_t offset, std::uint32_t tid) {
  // What is read ahead is not missed.
  if (touches_) return touches_->touched(offset);
  read_ahead_.set_far(far());
  fetch_ahead(read_ahead_.on_miss(offset, tid));
}

void Fetcher::record() {
  touches_ = std::make_unique<TouchLog>(region_.config().size, region_.config().chunk);
  read_ahead_.reset();
}

std::optional<std::vector<Range>> Fetcher::stop_recording() {
  if (!touches_) return std::nullopt;
  return std::exchange(touches_, nullptr)->ranges();
}

void Fetcher::fetched_without(std::uint64_t offset, std::uint32_t tid) {
  ++region_.stats().fetches;
  ++region_.stats().asked;
  missed(offset, tid);
}

void Fetcher::hit(std::uint64_t offset) {
  if (touches_) return touches_->touched(offset);
  fetch_ahead(read_ahead_.on_hit(offset));
}

void Fetcher::fetch_ahead(ReadAhead::Window window) {
  // A window in which there is nothing to fetch gets no mark, so nobody would
  // tell when the reader is through it: look a little further.
  for (int i = 0; i < 4 && !window.empty() && region_.ready(); ++i) {
    std::uint64_t queued = 0;
    for (std::uint64_t piece = 0; piece < window.pieces; ++piece) {
      const std::uint64_t offset = window.offset + piece * window.step;
      const std::uint64_t length = std::min(window.length, region_.config().size - offset);
      std::uint32_t some = 0;
      const int err = shared_.channel.prefetch(region_.config().id, offset, length,
                                               RMEM_PREFETCH_MAKE_ROOM, some);
      if (err != 0) {
        read_ahead_.give_up(window);
        return;
      }
      queued += some;
    }
    if (queued != 0) return;
    window = read_ahead_.after(window);
  }
}

bool Fetcher::issue_demand() {
  Request* r = demand_.first();
  for (; r && r->overtaken; r = demand_.first()) release(demand_.pop_front());
  if (!r || !region_.ready()) return false;
  const std::size_t demanded = reading_.size() - reading_ahead_;
  if (reading_.size() >= most_reading_ || demanded >= most_reading_ - kKeptForAhead) return false;
  if (!directly(r)) {
    r->buffer = shared_.arena.take(r->length);
    if (r->buffer.empty()) {
      if (reserve_taken_) return false;
      reserve_taken_ = r->reserve = true;
      r->buffer = {reserve_.get(), region_.config().chunk};
    }
  }
  demand_.remove(r);
  read(r);
  return true;
}

bool Fetcher::issue_prefetch() {
  Request* r = ahead_.first();
  if (!r || !region_.ready()) return false;
  if (reading_.size() >= most_reading_ || reading_ahead_ >= most_ahead_) return false;
  if (!directly(r)) {
    if (shared_.scarce(r->length)) return false;
    r->buffer = shared_.arena.take(r->length);
    if (r->buffer.empty()) return false;
  }
  ahead_.remove(r);
  ++region_.stats().prefetches;
  read(r);
  return true;
}

void Fetcher::read(Request* r) {
  ++region_.stats().fetches;
  if (ahead(r)) ++reading_ahead_;
  r->alone = reading_.empty();
  reading_.push_back(r);
  region_.operation_begins();
  const store::Done done = {&Fetcher::read_done, r};
  r->urgent = !ahead(r) && !r->hedge;
  r->asked = shared_.now();
  const auto urgency = r->urgent ? store::Urgency::kDemand : store::Urgency::kBulk;
  if (r->buffer.empty())
    return region_.store().receive(r->offset, r->length, *this, r, done, urgency);
  region_.store().read(r->offset, r->buffer.first(r->length), done, urgency);
}

// Without a buffer: from the store's socket into the kernel's pages.
bool Fetcher::directly(const Request* r) const {
  return !r->by_copy && shared_.channel.receives() && region_.store().can_receive(r->length);
}

// As refused() has it: why nobody wants its bytes any more, or 0.
int Fetcher::unwanted(const Request* r) const {
  if (r->overtaken) return ENOENT;
  return region_.gone() ? EAGAIN : 0;
}

store::Receiver::Taken Fetcher::receive(void* ctx, std::uint64_t offset, std::uint64_t length,
                                        int socket, const std::optional<std::uint32_t>& checksum) {
  auto* r = static_cast<Request*>(ctx);
  if ((r->err = unwanted(r)) != 0) return {0, false, ECANCELED};
  const auto got = shared_.channel.receive(r->cookie, offset, length, socket,
                                           r->mark ? RMEM_FILL_MARK : 0, checksum);
  switch (got.err) {
    case 0:
    case EAGAIN:
    case EBADMSG:
      return {got.bytes, false, got.err};
    case EPIPE:
      return {got.bytes, true, 0};
    case ECONNRESET:
      return {got.bytes, true, got.socket_err};
    case ENOMSG:  // a TLS record, which the connection has to look at
      return {got.bytes, true, ENOMSG};
    default:
      r->err = got.err;
      return {got.bytes, false, ECANCELED};
  }
}

bool Fetcher::zeros(void* ctx) {
  auto* r = static_cast<Request*>(ctx);
  if ((r->err = unwanted(r)) != 0) return false;
  r->err = shared_.channel.fill_zeros(r->cookie, r->length, r->mark ? RMEM_FILL_MARK : 0);
  return r->err == 0;
}

bool Fetcher::whole(void* ctx, std::span<const std::byte> bytes) {
  auto* r = static_cast<Request*>(ctx);
  if ((r->err = unwanted(r)) != 0) return false;
  r->err = shared_.channel.fill(r->cookie, 0, bytes, r->mark ? RMEM_FILL_MARK : 0);
  return r->err == 0;
}

void Fetcher::read_done(void* request, const store::Outcome& outcome) {
  auto* r = static_cast<Request*>(request);
  Fetcher& self = r->region->fetcher();
  self.over(r, outcome);
  self.shared_.pager.kick(self.region_);
}

void Fetcher::over(Request* r, const store::Outcome& outcome) {
  region_.operation_ends();
  reading_.remove(r);
  if (ahead(r)) --reading_ahead_;
  if (region_.gone()) return release(r);
  if (r->scout) return scout_over(r, outcome);
  if (r->alone && outcome.err == 0 && r->length == region_.config().chunk)
    whole_took_ = shared_.now() - r->asked;
  settle(r, outcome, r->buffer);
}

void Fetcher::settle(Request* r, const store::Outcome& outcome, std::span<const std::byte> bytes) {
  if (r->overtaken) return release(r);  // whatever came
  switch (outcome.err) {
    case 0:
      r->tries = 0;
      if (bytes.empty()) {  // filled by now
        ++region_.stats().received;
        return filled(r);
      }
      return fill(r, bytes);
    case ECANCELED:
      return refused(r);
    case EAGAIN:
      if (region_.ready()) region_.pause(Region::kPauseOnAgain);
      return again(r);
    case EBADMSG:
      ++region_.stats().damaged;
      if (++r->tries < kMaxDamaged) return again(r);
      if (region_.may_complain())
        region_.log().error("bytes at {} arrived damaged {} times in a row", r->offset, r->tries);
      return fail(r, EIO);
    case ESTALE:
      region_.stale();
      return again(r);
    default:
      if (region_.may_complain())
        region_.log().error("reading {} bytes at {}: {}", r->length, r->offset,
                            std::strerror(outcome.err));
      return fail(r, EIO);
  }
}

// --- those who ask by themselves ----------------------------------------------

store::Asker::Begun Fetcher::begin(const Lane& lane) {
  // What tasks have asked for by themselves nobody here knows to be late, nor comes the page
  // first. Over a distance that they ask saves little.
  const bool scouts = region_.config().chunk >= kLeastScouted && shared_.channel.fills_early();
  if (lane.round_trip >= kFar && (shared_.hedge || scouts)) return Begun::kNo;
  // Before the kernel may say so.
  lane_ = lane.number;
  kchan::KernelChannel::Lane lent{
      .number = lane.number,
      .socket = lane.socket,
      .message = lane.message,
      .cookie_at = lane.cookie_at,
      .offset_at = lane.offset_at,
      .length_at = lane.length_at,
      .checksum_at = lane.checksum_at,
      .at_once = lane.at_once,
      .answer = {},
      .answer_mask = {},
  };
  // What lies in the ring by now must not be taken for something to be received later.
  if (!lane.answer.header.empty() && shared_.pager.drain()) {
    lent.answer = lane.answer.header;
    lent.answer_mask = lane.answer.mask;
    lent.answer_cookie_at = lane.answer.cookie_at;
    lent.answer_offset_at = lane.answer.offset_at;
    lent.answer_length_at = lane.answer.length_at;
    lent.answer_payload_at = lane.answer.payload_at;
    lent.answer_sum_at = lane.answer.payload_checksum_at;
    lent.answer_checksum_at = lane.answer.checksum_at;
  }
  bool takes = false;
  const int err = shared_.channel.lane(region_.config().id, lent, takes);
  if (err != 0) {
    region_.log().warning("lending the connection: {}", std::strerror(err));
    return Begun::kNo;
  }
  if (!takes) return Begun::kAsks;
  // They are the kernel's, until it says so again.
  while (Request* r = asked_.pop_front()) release(r);
  return Begun::kTakes;
}

store::Asker::Started Fetcher::pause(std::span<std::byte> header) {
  const auto end = shared_.channel.end_lane(region_.config().id, header);
  return {end.header, end.payload, end.damaged};
}

void Fetcher::lost(std::uint32_t number) {
  if (number != lane_) return;
  lane_ = 0;
  while (Request* r = asked_.pop_front()) {
    ++region_.stats().repeated;
    demand_.push_back(r);
  }
  // Not from within, where the store is busy with its loss.
  shared_.pager.soon();
}

std::optional<void*> Fetcher::awaited(std::uint64_t cookie, std::uint64_t offset,
                                      std::uint64_t length) {
  Request* r = asked_.find(cookie);
  if (!r) {
    // It has been in the ring since before it was asked, or left to us.
    (void)shared_.pager.drain();
    r = asked_.find(cookie);
  }
  if (r && length != 0 && (offset != r->offset || length != r->length)) return std::nullopt;
  return r;
}

void Fetcher::answered(void* ctx, const store::Outcome& outcome, std::span<const std::byte> bytes) {
  auto* r = static_cast<Request*>(ctx);
  asked_.remove(r);
  settle(r, outcome, bytes);
  shared_.pager.kick(region_);
}

// The module would not receive the bytes, or was not given them.
void Fetcher::refused(Request* r) {
  switch (r->err) {
    case ENOENT:  // given up meanwhile
      return release(r);
    case EAGAIN:  // the region is gone
      return again(r);
    case ESPIPE:  // its twin has begun anew
      if (r->twin && !r->twin->scout) return release(r);
      break;
    case ENOMEM:
      if (ahead(r)) return fail(r, ECANCELED);
      break;
    default:
      if (region_.may_complain())
        region_.log().error("receiving {} bytes at {}: {}", r->length, r->offset,
                            std::strerror(r->err));
  }
  // A buffer can keep them until the module has memory, or says the same again.
  r->by_copy = true;
  again(r);
}

void Fetcher::fill(Request* r, std::span<const std::byte> bytes) {
  if (r->overtaken) return release(r);
  const int err =
      shared_.channel.fill(r->cookie, 0, bytes.first(r->length), r->mark ? RMEM_FILL_MARK : 0);
  switch (err) {
    case 0:
      return filled(r);
    case ENOENT:  // given up meanwhile, or a duplicate
      return release(r);
    case ENOMEM:
      // Whoever waits may be at its memory limit. Keep the bytes for a while.
      if (ahead(r)) return fail(r, ECANCELED);
      if (!r->buffer.empty() && ++r->tries < kMaxNoMemory) return unfilled_.push_back(r);
      r->tries = 0;
      return again(r);
    default:
      if (region_.may_complain())
        region_.log().error("filling {} bytes at {}: {}", r->length, r->offset, std::strerror(err));
      return fail(r, EIO);
  }
}

// Or to be asked for once more, which the kernel then tells.
void Fetcher::filled(Request* r) {
  if (r->twin) r->twin->overtaken = true;
  release(r);
}

void Fetcher::retry_fills() {
  for (std::size_t n = unfilled_.size(); n != 0; --n) {
    Request* r = unfilled_.pop_front();
    fill(r, r->buffer);
  }
}

// Back to the head of its queue, without its bytes.
void Fetcher::again(Request* r) {
  ++region_.stats().repeated;
  release_buffer(r);
  (ahead(r) ? ahead_ : demand_).push_front(r);
}

void Fetcher::fail(Request* r, int err) {
  if (r->twin && !r->twin->scout) return release(r);  // which may still succeed
  // Nobody waits for a fetch ahead; who does by now asks again, and is told.
  const int told = ahead(r) ? ECANCELED : err;
  shared_.channel.complete({&r->cookie, 1}, told);
  // If the kernel asks again, what a scout brings may be older than what that is for.
  if (r->twin) r->twin->overtaken = true;
  release(r);
}

void Fetcher::release_buffer(Request* r) {
  if (r->reserve) {
    reserve_taken_ = r->reserve = false;
  } else if (!r->buffer.empty()) {
    shared_.arena.give_back(r->buffer);
  }
  r->buffer = {};
}

void Fetcher::release(Request* r) {
  if (r->twin) r->twin->twin = nullptr;
  release_buffer(r);
  shared_.pool.give_back(r);
}

void Fetcher::disconnected() {
  read_ahead_.reset();
  while (Request* r = ahead_.pop_front()) fail(r, ECANCELED);
}

void Fetcher::drop_all() {
  for (List* list : {&demand_, &ahead_, &asked_, &unfilled_}) {
    while (Request* r = list->pop_front()) release(r);
  }
}

}  // namespace rmem::pager
