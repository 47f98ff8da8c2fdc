// SPDX-License-Identifier: MIT
#include "pager/region.hh"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace rmem::pager {

Region::Region(RegionConfig config, Shared& shared)
    : config_(std::move(config)),
      shared_(shared),
      log_("pager", config_.name),
      push_due_(config_.read_only || config_.push_interval.count() == 0
                    ? Clock::time_point::max()
                    : shared.now() + config_.push_interval),
      fetcher_(*this, shared),
      write_back_(*this, shared),
      puller_(*this, shared) {
  pull_limit_.set(config_.pull_rate, shared.now());
  push_limit_.set(config_.push_rate, shared.now());
}

void Region::connect(store::Store& store) {
  if (gone_) return;
  store_ = &store;
  paused_until_ = {};
  stale_ = false;
  if (const int err = shared_.channel.set_state(config_.id, RMEM_STATE_ACTIVE, "")) {
    log_.warning("telling the kernel that the store is there: {}", std::strerror(err));
  }
  if (shared_.channel.asks())
    store.set_asker(&fetcher_.asker(), config_.chunk, shared_.channel.receives());
}

void Region::disconnect(std::string_view reason) {
  if (gone_) return;
  if (store_) store_->set_asker(nullptr);
  store_ = nullptr;
  if (const int err = shared_.channel.set_state(config_.id, RMEM_STATE_DEGRADED, reason)) {
    log_.warning("telling the kernel that the store is gone: {}", std::strerror(err));
  }
  fetcher_.disconnected();
}

void Region::fail(std::string_view reason) {
  if (gone_) return;
  log_.error("failed: {}", reason);
  if (const int err = shared_.channel.set_state(config_.id, RMEM_STATE_FAILED, reason)) {
    log_.warning("telling the kernel that the region failed: {}", std::strerror(err));
  }
  failed_ = true;
  retire();
}

void Region::stale() {
  stale_ = true;
  pause(kPauseOnStale);
}

void Region::retire() {
  gone_ = true;
  if (store_) store_->set_asker(nullptr);
  fetcher_.drop_all();
  write_back_.drop_all();
}

void Region::pause(std::chrono::milliseconds duration) { paused_until_ = shared_.now() + duration; }

bool Region::may_complain() {
  const Clock::time_point now = shared_.now();
  if (complained_ != Clock::time_point{} && now - complained_ < std::chrono::seconds(1)) {
    return false;
  }
  complained_ = now;
  return true;
}

void Region::tick(Clock::time_point now) {
  if (gone_) return;
  if (paused_until_ != Clock::time_point{} && now >= paused_until_) {
    paused_until_ = {};
    if (stale_) return fail("the store is another one now, or another writer took over");
  }
  if (fetcher_.has_unfilled()) fetcher_.retry_fills();
  fetcher_.hedge(now);
  if (now < push_due_) return;
  push_due_ = now + config_.push_interval;
  if (!store_) return;  // the pages are better off in the kernel
  if (const int err = shared_.channel.push(config_.id); err != 0 && err != ENOENT) {
    log_.warning("push: {}", std::strerror(err));
  }
}

Region::Clock::time_point Region::due() const {
  if (gone_) return Clock::time_point::max();
  Clock::time_point due = push_due_;
  if (ready()) due = std::min({due, write_back_.flush_due(), write_back_.held_until()});
  if (paused_until_ != Clock::time_point{}) due = std::min(due, paused_until_);
  if (ready() && puller_.active()) due = std::min(due, shared_.now() + kPullInterval);
  due = std::min(due, fetcher_.hedge_due());
  if (fetcher_.has_unfilled()) due = std::min(due, shared_.now() + kPauseOnNoMemory);
  return due;
}

}  // namespace rmem::pager
