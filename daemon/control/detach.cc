// SPDX-License-Identifier: MIT
// The verb detach: make everything durable, unmake the region, give the store
// back.
#include <cerrno>
#include <chrono>
#include <utility>

#include "control/regions.hh"

namespace rmem::control {
namespace {

// How long a server may take to hear that the claim is given back.
constexpr std::chrono::seconds kReleaseTime{3};

}  // namespace

struct Regions::Detaching {
  Detaching(Reactor& reactor, Handle handle, bool by_force,
            std::function<void(Result<Detached>)> then)
      : a(std::move(handle)),
        force(by_force),
        done(std::move(then)),
        timer(reactor, [this] { late(); }) {}

  void late() {
    if (on_late) std::exchange(on_late, nullptr)();
  }

  Handle a;
  bool force;
  std::uint64_t lost_bytes = 0;
  Attachment::Phase phase_before{};
  std::function<void(Result<Detached>)> done;
  Reactor::Timer timer;
  std::function<void()> on_late;
};

void Regions::detach(const std::string& name, bool force,
                     std::function<void(Result<Detached>)> done) {
  auto found = find(name);
  if (!found.ok()) {
    const auto info = kernel_.get(name);
    if (info.ok() && info->instance == instance_ && !by_name_.count(name)) {
      return done(detach_foreign(*info, force));
    }
    return done(found.status());
  }
  auto d = std::make_shared<Detaching>(reactor_, *found, force, std::move(done));
  Attachment& a = *d->a;
  d->phase_before = a.phase;
  a.phase = Attachment::Phase::kDetaching;
  if (const auto kept = keep_recording(a); !kept.ok())
    a.log().warning("the recording is lost: {}", kept.status().cause());
  // Who syncs now waits for a store that is away; force does not.
  if (force && !a.up()) return detach_synced(d, Status());
  a.when_unused([this, d] {
    if (d->a->options().read_only) return detach_synced(d, Status());
    kernel_.sync(d->a->name(), [this, d](const Status& s) { detach_synced(d, s); });
  });
}

Result<Regions::Detached> Regions::detach_foreign(const kchan::RegionInfo& info, bool force) {
  if (force) {
    const auto lost = kernel_.unmake_by_force(info.id);
    if (!lost.ok()) return lost.status().with_context("region " + info.name);
    return Detached{{}, *lost};
  }
  const Status s = kernel_.unmake(info.id);
  if (!s.ok()) return s.with_context("region " + info.name);
  return Detached{};
}

void Regions::detach_synced(const std::shared_ptr<Detaching>& d, const Status& synced) {
  Attachment& a = *d->a;
  Status why;
  auto info = kernel_.get(a.name());
  if (!info.ok() && info.status().code() == Code::kNotFound) return detach_unmade(d);
  if (d->force && info.ok()) {
    const auto lost = kernel_.unmake_by_force(info->id);
    if (lost.ok()) {
      d->lost_bytes = *lost;
      return detach_unmade(d);
    }
    why = lost.status();
  } else if (!synced.ok() && (!info.ok() || info->dirty_bytes + info->writeback_bytes != 0)) {
    why = explain(a, synced, true).with_context("detach");
  } else if (const Status s = kernel_.unmake(info.ok() ? info->id : a.id()); !s.ok()) {
    why = s.err() == EBUSY
              ? Status(Code::kBusy, "region " + a.name() + " is open or mapped; it was pushed",
                       "close the programs that use it (fuser -v), then detach again", EBUSY)
              : s;
  } else {
    return detach_unmade(d);
  }
  // It stays as it was, with its claim.
  a.phase = d->phase_before;
  d->done(why);
}

void Regions::detach_unmade(const std::shared_ptr<Detaching>& d) {
  Attachment& a = *d->a;
  a.log().info("detached");
  by_name_.erase(a.name());
  const bool has_claim = a.source && a.failure().ok() && !a.options().read_only;
  const auto finish = [this, d](const Status& released) {
    if (!d->done) return;  // too late: already finished
    d->on_late = nullptr;
    d->timer.disarm();
    Detached result;
    result.lost_bytes = d->lost_bytes;
    if (!released.ok()) {
      result.warning = d->a->options().source + " still counts this host as its writer (" +
                       released.cause() + "); the next attach needs --take-over";
    }
    std::exchange(d->done, nullptr)(std::move(result));
    // Not from within a call of the source, which goes with the attachment.
    reactor_.post([this, d] { bury(std::exchange(d->a, nullptr)); });
  };
  if (!has_claim) return finish(Status());
  d->on_late = [finish] { finish(Status(Code::kTimeout, "the server does not answer")); };
  d->timer.arm(kReleaseTime);
  a.source->release(finish);
}

}  // namespace rmem::control
