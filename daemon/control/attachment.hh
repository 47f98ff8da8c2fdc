// SPDX-License-Identifier: MIT
// One region of this daemon: its options, its source and its place in the pager.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.hh"
#include "base/status.hh"
#include "control/kernel.hh"
#include "control/options.hh"
#include "control/source.hh"
#include "kchan/netlink.hh"
#include "pager/pager.hh"

namespace rmem::control {

// Ties a source to a region: while the source can be reached, the pager may use
// its store. Made by Regions only; lives until its store has answered
// everything.
class Attachment final : public Source::Listener {
 public:
  enum class Phase {
    kAttaching,  // on the way to being served; no verb may touch it
    kServed,     // requests arrive; the source may be up or not
    kStranded,   // the kernel has it, but it cannot be served: failure() says why
    kDetaching,
  };

  Attachment(Notes notes, Kernel& kernel, pager::Pager& pager);

  const std::string& name() const { return notes_.options.name; }
  const AttachOptions& options() const { return notes_.options; }
  Notes& notes() { return notes_; }
  const Uuid& identity() const { return notes_.identity; }  // of the store
  std::uint32_t id() const { return id_; }
  std::uint64_t size() const { return size_; }  // once it is served
  const log::Source& log() const { return log_; }

  Phase phase = Phase::kAttaching;
  std::unique_ptr<Source> source;
  kchan::WriterId writer{};

  // The region exists in the kernel as `info`: from now on its requests come
  // here and wait for the source. 0 or a positive errno.
  int serve(const kchan::RegionInfo& info);
  // No request comes here any more. `quiet` is called, possibly at once, when
  // the store has answered everything.
  void leave_pager(std::function<void()> quiet);
  // The claim is held, or is not needed: go.
  void opened();
  // Bytes a second from now on, also for a successor; 0: no limit.
  void limit(std::uint64_t pull_rate, std::uint64_t push_rate);
  // Writes the notes to the kernel if the claim's generation has changed.
  void keep_notes();

  bool up() const { return up_; }
  // Why it cannot be reached now; ok when it can.
  const Status& down_reason() const { return down_; }
  // Why it never can be again; ok while that is not so.
  const Status& failure() const { return failure_; }
  void strand(Status why);

  // sync and drop under way in helper threads; they keep the region open.
  void operation_begins() { ++operations_; }
  void operation_ends();
  // Calls back, possibly at once, when none is under way.
  void when_unused(std::function<void()> then);

  // Source::Listener.
  void on_up() override;
  void on_down(const Status& reason) override;
  void on_failed(const Status& reason) override;

 private:
  // `otherwise`: what it means if they cannot be kept.
  void write_notes(std::string_view otherwise);

  Notes notes_;
  Kernel& kernel_;
  pager::Pager& pager_;
  log::Source log_;
  std::uint32_t id_ = 0;
  std::uint64_t size_ = 0;
  bool in_pager_ = false;
  bool up_ = false;
  Status down_;
  Status failure_;
  unsigned operations_ = 0;
  std::function<void()> unused_;
};

}  // namespace rmem::control
