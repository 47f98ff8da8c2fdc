// SPDX-License-Identifier: MIT
#include "pager/pager.hh"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace rmem::pager {
namespace {

constexpr std::uint64_t kPage = 4096;
// Runs of one write: at worst every other page of the largest chunk, or every page
// another kind.
constexpr std::size_t kMaxRuns = RMEM_CHUNK_MAX / kPage / 2 + 1;
constexpr std::size_t kMaxWriteRuns = RMEM_CHUNK_MAX / kPage;
constexpr std::size_t kMaxBatch = 4096;  // cookies in one RMEM_IOC_COMPLETE

bool well_formed(const RegionConfig& region, const rmem_request& e) {
  if (e.op == RMEM_OP_HIT || e.op == RMEM_OP_MISS) return e.demand_offset < region.size;
  if (e.op == RMEM_OP_LANE) return true;
  if (e.length == 0 || e.offset >= region.size || e.length > region.size - e.offset) return false;
  switch (e.op) {
    case RMEM_OP_FETCH:
      return e.length <= region.chunk && e.offset % kPage == 0;
    case RMEM_OP_WRITE:
      return !region.read_only && e.length <= region.chunk && e.payload <= region.chunk;
    case RMEM_OP_ZERO:
      return !region.read_only;
    default:
      return false;
  }
}

}  // namespace

Pager::Pager(kchan::KernelChannel& channel, Options options,
             std::function<void(Clock::time_point)> wake)
    : channel_(channel),
      options_(options),
      wake_(std::move(wake)),
      arena_(options.buffer_bytes),
      pool_(options.requests, options.request_limit),
      runs_(kMaxRuns),
      write_runs_(kMaxWriteRuns),
      cookies_(kMaxBatch),
      shared_{*this,       channel_, arena_,      pool_,        runs_,
              write_runs_, cookies_, options.now, options.hedge} {}

Pager::~Pager() = default;

Region* Pager::find(std::uint32_t id) const {
  const auto it = regions_.find(id);
  return it == regions_.end() ? nullptr : it->second.get();
}

void Pager::add(RegionConfig config) {
  const std::uint32_t id = config.id;
  auto region = std::make_unique<Region>(std::move(config), shared_);
  turns_.reserve(regions_.size() + removed_.size() + 1);
  wake_no_later_than(region->due());
  regions_.insert_or_assign(id, std::move(region));
}

void Pager::connect(std::uint32_t id, store::Store& store) {
  Region* region = find(id);
  if (!region) return;
  region->connect(store);
  kick(*region);
}

void Pager::disconnect(std::uint32_t id, std::string_view reason) {
  if (Region* region = find(id)) region->disconnect(reason);
}

void Pager::fail(std::uint32_t id, std::string_view reason) {
  if (Region* region = find(id)) region->fail(reason);
}

void Pager::remove(std::uint32_t id, std::function<void()> quiet) {
  const auto it = regions_.find(id);
  if (it == regions_.end()) return;
  it->second->retire();
  removed_.push_back({std::move(it->second), std::move(quiet)});
  regions_.erase(it);
  if (removed_.back().region->quiet()) wake_no_later_than(options_.now());
}

void Pager::accept(const rmem_request& e) {
  Region* region = find(e.region_id);
  // Unmade while the entry lay in the ring: its cookie is gone, too.
  if (!region || region->gone()) return;
  if (!well_formed(region->config(), e)) {
    ++region->stats().malformed;
    if (region->may_complain()) {
      region->log().error("ring entry makes no sense: op {} offset {} length {} payload {}", e.op,
                          e.offset, e.length, e.payload);
    }
    return refuse(e, EIO);
  }
  if (e.op == RMEM_OP_HIT) return region->fetcher().hit(e.demand_offset);
  if (e.op == RMEM_OP_MISS) return region->fetcher().fetched_without(e.offset, e.tid);
  if (e.op == RMEM_OP_LANE) return region->take_answers(e.lane);

  if (e.op == RMEM_OP_FETCH && (e.flags & RMEM_REQ_JOINED) != 0) {
    region->fetcher().joined(e.cookie, e.demand_offset);
    return list(*region);
  }
  if (e.op == RMEM_OP_FETCH && (e.flags & RMEM_REQ_AGAIN) != 0 &&
      region->fetcher().unasked(e.cookie)) {
    return list(*region);
  }
  const bool ahead = e.op == RMEM_OP_FETCH && (e.flags & RMEM_REQ_PREFETCH) != 0;

  // What can be asked again makes room before it is all taken.
  const std::size_t used = pool_.in_use();
  if (ahead && used >= options_.request_limit / 2) return refuse(e, ECANCELED);
  if (e.op == RMEM_OP_WRITE && used >= options_.request_limit / 4 * 3) return refuse(e, EAGAIN);
  Request* r = pool_.take();
  if (!r) return refuse(e, ahead ? ECANCELED : e.op == RMEM_OP_FETCH ? EIO : EAGAIN);

  r->region = region;
  r->cookie = e.cookie;
  r->offset = e.offset;
  r->length = e.length;
  r->demand = e.demand_offset;
  r->payload = e.payload;
  r->op = e.op;
  r->flags = e.flags;
  if (e.op == RMEM_OP_FETCH) {
    region->fetcher().add(r, e.lane);
    // A repetition tells nothing about where the reader goes.
    if (!ahead && !(e.flags & RMEM_REQ_AGAIN)) region->fetcher().missed(e.offset, e.tid);
  } else {
    region->write_back().add(r);
  }
  list(*region);
}

void Pager::refuse(const rmem_request& e, int err) {
  const std::uint64_t cookie = e.cookie;
  if (cookie != 0) channel_.complete({&cookie, 1}, err);
}

void Pager::list(Region& region) {
  if (region.listed) return;
  region.listed = true;
  turns_.push_back(&region);
}

void Pager::kick(Region& region) {
  list(region);
  pump();
}

void Pager::pump() {
  if (pumping_) {  // an answer came before the call that asked for it returned
    again_ = true;
    return;
  }
  pumping_ = true;
  do {
    again_ = false;
    while (issue_round()) {
    }
    // Last, so that a window holds all that could be written.
    for (std::size_t i = 0; i < turns_.size(); ++i) turns_[i]->write_back().flush_if_due();
  } while (again_);
  settle();
  pumping_ = false;
}

// One turn for every region; all demand fetches go before anything else.
bool Pager::issue_round() {
  bool issued = false;
  for (bool more = true; more;) {
    more = false;
    for (std::size_t i = 0; i < turns_.size(); ++i) more |= turns_[i]->fetcher().issue_demand();
    issued |= more;
  }
  for (std::size_t i = 0; i < turns_.size(); ++i) {
    issued |= turns_[i]->write_back().issue();
    issued |= turns_[i]->fetcher().issue_prefetch();
    turns_[i]->puller().advance();
  }
  return issued;
}

// Keeps in turn only the regions that still have something to hand out, and
// sees when they need tick().
void Pager::settle() {
  Clock::time_point due = Clock::time_point::max();
  std::erase_if(turns_, [&](Region* region) {
    due = std::min(due, region->due());
    if (region->gone() && region->quiet()) due = options_.now();
    region->listed = region->wants_turn();
    return !region->listed;
  });
  wake_no_later_than(due);
}

void Pager::tick() {
  const Clock::time_point now = options_.now();
  due_ = Clock::time_point::max();
  Clock::time_point due = due_;
  for (auto& [id, region] : regions_) {
    region->tick(now);
    if (region->ready()) list(*region);
    due = std::min(due, region->due());
  }
  pump();
  wake_no_later_than(due);

  for (std::size_t i = 0; i < removed_.size();) {
    if (!removed_[i].region->quiet()) {
      ++i;
      continue;
    }
    Removed gone = std::move(removed_[i]);
    removed_.erase(removed_.begin() + static_cast<std::ptrdiff_t>(i));
    std::erase(turns_, gone.region.get());
    gone.region.reset();
    gone.quiet();
  }
}

void Pager::wake_no_later_than(Clock::time_point due) {
  if (due >= due_) return;
  due_ = due;
  wake_(due);
}

void Pager::limit(std::uint32_t id, std::uint64_t pull_rate, std::uint64_t push_rate) {
  Region* region = find(id);
  if (!region) return;
  region->pull_limit().set(pull_rate, options_.now());
  region->push_limit().set(push_rate, options_.now());
  kick(*region);
}

int Pager::push(std::uint32_t id) { return channel_.push(id); }

std::uint64_t Pager::pull(std::uint32_t id, std::vector<Range> ranges) {
  Region* region = find(id);
  if (!region) return 0;
  const std::uint64_t number = region->puller().add(std::move(ranges));
  kick(*region);
  return number;
}

void Pager::record(std::uint32_t id) {
  // What was touched before lies in the ring.
  (void)drain();
  if (Region* region = find(id)) region->fetcher().record();
}

std::optional<std::vector<Range>> Pager::stop_recording(std::uint32_t id) {
  (void)drain();
  Region* region = find(id);
  if (!region) return std::nullopt;
  return region->fetcher().stop_recording();
}

std::optional<std::size_t> Pager::recorded(std::uint32_t id) const {
  const Region* region = find(id);
  const TouchLog* recording = region ? region->fetcher().recording() : nullptr;
  if (!recording) return std::nullopt;
  return recording->chunks();
}

const Puller* Pager::puller(std::uint32_t id) const {
  const Region* region = find(id);
  return region ? &region->puller() : nullptr;
}

bool Pager::idle(std::uint32_t id) const {
  Region* region = find(id);
  return !region || region->write_back().idle();
}

bool Pager::failed(std::uint32_t id) const {
  Region* region = find(id);
  return region && region->failed();
}

Pager::Memory Pager::memory() const {
  // Each region has one chunk of its own, and it is there all the time.
  std::uint64_t reserves = 0, noted = 0, most_noted = 0;
  for (const auto& [id, region] : regions_) {
    reserves += region->config().chunk;
    const TouchLog* recording = std::as_const(*region).fetcher().recording();
    if (!recording) continue;
    noted += recording->bytes();
    most_noted += TouchLog::most_bytes();
  }
  for (const auto& removed : removed_) reserves += removed.region->config().chunk;
  return {arena_.size() - arena_.free_bytes() + pool_.bytes() + reserves + noted,
          arena_.size() + pool_.most_bytes() + reserves + most_noted};
}

std::uint64_t Pager::buffer_bytes(std::uint32_t id) const {
  Region* region = find(id);
  return region ? region->fetcher().buffer_bytes() + region->write_back().buffer_bytes() : 0;
}

Stats Pager::stats(std::uint32_t id) const {
  Region* region = find(id);
  return region ? region->stats() : Stats{};
}

}  // namespace rmem::pager
