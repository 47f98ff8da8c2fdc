// SPDX-License-Identifier: MIT
#include "control/attachment.hh"

#include <utility>

namespace rmem::control {

Attachment::Attachment(Notes notes, Kernel& kernel, pager::Pager& pager)
    : notes_(std::move(notes)),
      kernel_(kernel),
      pager_(pager),
      log_("region", notes_.options.name) {}

int Attachment::serve(const kchan::RegionInfo& info) {
  id_ = info.id;
  size_ = info.size;
  writer = info.writer;
  // First the pager: the kernel may publish at once.
  pager::RegionConfig config;
  config.id = info.id;
  config.name = info.name;
  config.size = info.size;
  config.chunk = info.chunk;
  config.read_only = info.read_only();
  config.push_interval = options().push_interval;
  config.resident_limit = info.resident_limit;
  config.pull_rate = options().pull_rate;
  config.push_rate = options().push_rate;
  pager_.add(std::move(config));
  in_pager_ = true;
  const int err = kernel_.serve(info.id);
  if (err != 0) leave_pager([] {});
  return err;
}

void Attachment::leave_pager(std::function<void()> quiet) {
  if (!std::exchange(in_pager_, false)) return quiet();
  pager_.remove(id_, std::move(quiet));
}

void Attachment::opened() {
  phase = Phase::kServed;
  keep_notes();
  // The connection may have been lost since; then on_up() follows.
  if (down_.ok()) {
    on_up();
  } else {
    pager_.disconnect(id_, down_.cause());
  }
}

void Attachment::keep_notes() {
  const std::uint64_t generation = source->claim_generation();
  if (generation == 0 || generation == notes_.claim_generation) return;
  notes_.claim_generation = generation;
  write_notes("after a restart the writer claim may have to be taken over");
}

void Attachment::write_notes(std::string_view otherwise) {
  if (const Status s = kernel_.set_blob(id_, notes_.to_blob()); !s.ok())
    log_.warning("{}; {}", s.cause(), otherwise);
}

void Attachment::limit(std::uint64_t pull_rate, std::uint64_t push_rate) {
  notes_.options.pull_rate = pull_rate;
  notes_.options.push_rate = push_rate;
  pager_.limit(id_, pull_rate, push_rate);
  write_notes("after a restart the rates are as they were");
}

void Attachment::strand(Status why) {
  phase = Phase::kStranded;
  failure_ = std::move(why);
}

void Attachment::operation_ends() {
  if (--operations_ != 0 || !unused_) return;
  std::exchange(unused_, nullptr)();
}

void Attachment::when_unused(std::function<void()> then) {
  if (operations_ == 0) return then();
  unused_ = std::move(then);
}

void Attachment::on_up() {
  down_ = Status();
  if (phase == Phase::kAttaching || !in_pager_) return;
  if (!up_) log_.info("{}: reached", options().source);
  up_ = true;
  keep_notes();
  pager_.connect(id_, source->store());
}

void Attachment::on_down(const Status& reason) {
  down_ = reason;
  if (phase == Phase::kAttaching || !in_pager_) return;
  if (up_) log_.warning("{}: lost: {}", options().source, reason.cause());
  up_ = false;
  pager_.disconnect(id_, reason.cause());
}

void Attachment::on_failed(const Status& reason) {
  failure_ = reason;
  down_ = reason;
  up_ = false;
  if (in_pager_) pager_.fail(id_, reason.cause());
}

}  // namespace rmem::control
