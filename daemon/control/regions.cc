// SPDX-License-Identifier: MIT
#include "control/regions.hh"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

namespace rmem::control {
namespace {

// Whoever served a region and was killed a moment ago may not have let go of it yet:
// his address space holds the ring, and goes away later while reclaim looks at it.
constexpr std::chrono::milliseconds kHeldPause{50};

}  // namespace

Regions::Regions(Reactor& reactor, Kernel& kernel, pager::Pager& pager, SourceFactory& sources,
                 std::string instance, Recordings recordings)
    : reactor_(reactor),
      kernel_(kernel),
      pager_(pager),
      sources_(sources),
      instance_(std::move(instance)),
      recordings_(std::move(recordings)),
      held_timer_(reactor, [this] { adopt_held(); }) {}

Regions::~Regions() {
  // What the stores still owe, the pager gets now. Those that were on their way to be
  // attached hear of it, and leave the map.
  const auto all = by_name_;
  for (const auto& [name, a] : all) {
    if (a->source) a->source->close();
  }
}

Status Regions::adopt(std::function<void()> settled, std::chrono::milliseconds patience) {
  auto regions = kernel_.list();
  if (!regions.ok()) return regions.status();
  settled_ = std::move(settled);
  held_until_ = std::chrono::steady_clock::now() + patience;
  for (const kchan::RegionInfo& info : *regions) {
    if (info.instance == instance_) adopt(info);
  }
  held_timer_.arm(held_.empty() ? std::chrono::milliseconds(0) : kHeldPause);
  return Status();
}

void Regions::adopt_held() {
  for (const std::string& name : std::exchange(held_, {})) {
    const auto info = kernel_.get(name);
    if (info.ok()) adopt(*info);
  }
  if (!held_.empty()) return held_timer_.arm(kHeldPause);
  settled_();
}

void Regions::adopt(const kchan::RegionInfo& info) {
  auto notes = Notes::from_blob(info.blob);
  if (!notes.ok()) {
    log_.error("region {} is not served: {}", info.name, notes.status().cause());
    return;
  }
  notes->options.name = info.name;
  notes->options.source = info.source;
  auto a = std::make_shared<Attachment>(*notes, kernel_, pager_);
  by_name_[info.name] = a;
  if (info.state == RMEM_STATE_FAILED) {
    return a->strand(Status(Code::kCorrupt, info.reason, {}, ESTALE));
  }
  if (const int err = a->serve(info); err != 0) {
    by_name_.erase(info.name);
    if (err == EBUSY && std::chrono::steady_clock::now() < held_until_) {
      return held_.push_back(info.name);
    }
    return a->log().error("cannot be served: {}", std::strerror(err));
  }
  a->phase = Attachment::Phase::kServed;
  begin_pull(*a, info.size);

  SourceOptions options;
  options.read_only = info.read_only();
  options.insecure = notes->options.insecure;
  options.expected.emplace();
  options.expected->size = info.size;
  options.expected->identity = notes->identity;
  auto source = sources_.make(info.source, options, *a);
  if (!source.ok()) {
    // Not for good: another release of this program may know better.
    return a->on_down(source.status());
  }
  a->source = std::move(*source);
  pager_.disconnect(info.id, info.source + ": connecting");
  std::optional<store::WriterClaim> claim;
  if (!info.read_only()) {
    claim.emplace();
    claim->writer = info.writer;
    claim->generation = notes->claim_generation;
  }
  a->log().info("adopted, {}", info.source);
  a->source->resume(claim);
}

Result<Regions::Handle> Regions::find(const std::string& name) {
  const auto it = by_name_.find(name);
  if (it != by_name_.end()) {
    switch (it->second->phase) {
      case Attachment::Phase::kAttaching:
        return Status(Code::kBusy, "region " + name + " is being attached", "try again");
      case Attachment::Phase::kDetaching:
        return Status(Code::kBusy, "region " + name + " is being detached", "try again");
      default:
        return it->second;
    }
  }
  auto info = kernel_.get(name);
  if (!info.ok()) return info.status();
  if (info->instance != instance_) {
    return Status(Code::kBusy,
                  "region " + name + " belongs to the daemon instance `" + info->instance + "'",
                  "use --socket to speak to that daemon");
  }
  return Status(Code::kBusy, "region " + name + " is not served by this daemon",
                "its log says why");
}

void Regions::sync(const std::string& name, Finished done) {
  use_file(name, false, std::move(done));
}

void Regions::drop(const std::string& name, Finished done) {
  use_file(name, true, std::move(done));
}

Result<std::uint64_t> Regions::pull(const std::string& name, std::uint64_t offset,
                                    std::uint64_t length) {
  const auto found = find(name);
  if (!found.ok()) return found.status();
  const Attachment& a = **found;
  if (!a.failure().ok()) return explain(a, Status(Code::kFailed, "pull"), false);
  const auto info = kernel_.get(name);
  if (!info.ok()) return info.status();
  if (offset >= info->size || length > info->size - offset) {
    return Status(Code::kUsage, "region " + name + " has " + std::to_string(info->size) +
                                    " bytes; the range leaves it");
  }
  return pager_.pull(a.id(), {{offset, length != 0 ? length : info->size - offset}});
}

void Regions::begin_pull(const Attachment& a, std::uint64_t size) {
  if (a.options().pull == "none" || size == 0) return;
  if (a.options().pull == "all") {
    pager_.pull(a.id(), {{0, size}});
    return;
  }
  auto ranges = recordings_.find(a.identity(), size);
  if (!ranges.ok()) return a.log().warning("nothing is pulled: {}", ranges.status().cause());
  if (ranges->empty()) return a.log().info("nothing is pulled: nothing was recorded");
  pager_.pull(a.id(), std::move(*ranges));
}

Status Regions::limit(const std::string& name, std::optional<std::uint64_t> pull_rate,
                      std::optional<std::uint64_t> push_rate) {
  const auto found = find(name);
  if (!found.ok()) return found.status();
  Attachment& a = **found;
  a.limit(pull_rate.value_or(a.options().pull_rate), push_rate.value_or(a.options().push_rate));
  return Status();
}

void Regions::record(const std::string& name, Finished done) {
  const auto found = find(name);
  if (!found.ok()) return done(found.status());
  const Handle& a = *found;
  if (!a->failure().ok()) return done(explain(*a, Status(Code::kFailed, "record"), false));
  // What is pulled is not missed.
  if (const pager::Puller* puller = pager_.puller(a->id()); puller && puller->active()) {
    return done(Status(Code::kBusy, "region " + name + " is being pulled",
                       "rmemctl status --json tells when that is over"));
  }
  // What is touched meanwhile is noted as well; dirty pages could not be dropped.
  const auto recording = [this, a, name, done = std::move(done)](const Status& synced) {
    if (!synced.ok()) return done(synced);
    pager_.record(a->id());
    drop(name, [this, a, done](const Status& dropped) {
      if (!dropped.ok()) (void)pager_.stop_recording(a->id());
      done(dropped);
    });
  };
  if (a->options().read_only) return recording(Status());
  sync(name, recording);
}

Result<Regions::Recorded> Regions::stop_recording(const std::string& name) {
  const auto found = find(name);
  if (!found.ok()) return found.status();
  if (!pager_.recorded((*found)->id()))
    return Status(Code::kUsage, "region " + name + " is not being recorded",
                  "rmemctl record " + name + " begins");
  return keep_recording(**found);
}

Result<Regions::Recorded> Regions::keep_recording(Attachment& a) {
  const auto ranges = pager_.stop_recording(a.id());
  if (!ranges) return Recorded{};
  Recorded recorded{ranges->size()};
  for (const pager::Range& range : *ranges) recorded.bytes += range.length;
  const Status kept = recordings_.keep(a.notes().identity, a.size(), *ranges);
  if (!kept.ok()) return kept;
  return recorded;
}

void Regions::use_file(const std::string& name, bool drop, Finished done) {
  auto found = find(name);
  if (!found.ok()) return done(found.status());
  Handle a = *found;
  a->operation_begins();
  auto finished = [this, a, before = pager_.stats(a->id()).refused,
                   done = std::move(done)](const Status& status) {
    done(explain(*a, status, pager_.stats(a->id()).refused != before));
    a->operation_ends();
  };
  if (drop) {
    kernel_.drop(name, std::move(finished));
  } else {
    kernel_.sync(name, std::move(finished));
  }
}

Status Regions::explain(const Attachment& a, const Status& status, bool refused) {
  if (status.ok()) return status;
  if (!a.failure().ok()) {
    return Status(
        a.failure().code(), "region " + a.name() + " has failed: " + a.failure().cause(),
        "rmemctl salvage " + a.name() + " FILE keeps what was not synced; then detach --force",
        ESTALE);
  }
  if (status.err() == EIO && !a.up()) {
    const std::string why = a.down_reason().ok() ? "not reached yet" : a.down_reason().cause();
    return Status(Code::kUnreachable, "region " + a.name() + ": " + a.options().source + ": " + why,
                  "nothing is lost: it is pushed once the server is back", EIO);
  }
  if (status.err() == EIO && !refused) {
    return Status(Code::kUnreachable,
                  "region " + a.name() + ": " + a.options().source + ": no answer in time",
                  "nothing is lost: it is pushed once the server answers", EIO);
  }
  return status;
}

nlohmann::json Regions::status() const {
  auto list = nlohmann::json::array();
  for (const auto& [name, a] : by_name_) {
    static constexpr const char* kPhases[] = {"attaching", "served", "stranded", "detaching"};
    const pager::Stats stats = pager_.stats(a->id());
    const auto crypto_time = a->source ? a->source->crypto_time() : std::chrono::nanoseconds();
    list.push_back({{"name", name},
                    {"id", a->id()},
                    {"source", a->options().source},
                    {"phase", kPhases[static_cast<int>(a->phase)]},
                    {"up", a->up()},
                    {"lanes", a->source ? a->source->lanes() : 0u},
                    {"transport", a->source ? a->source->transport() : ""},
                    {"tls_user_ms",
                     std::chrono::duration_cast<std::chrono::milliseconds>(crypto_time).count()},
                    {"compression_saved_bytes", a->source ? a->source->bytes_saved() : 0u},
                    {"reason", a->failure().ok() ? a->down_reason().cause() : a->failure().cause()},
                    {"store_fetches", stats.fetches},
                    {"store_prefetches", stats.prefetches},
                    {"store_writes", stats.writes},
                    {"store_flushes", stats.flushes},
                    {"repeated", stats.repeated},
                    {"hedged", stats.hedged},
                    {"early", stats.early},
                    {"damaged", stats.damaged},
                    {"malformed", stats.malformed},
                    {"pull_rate", a->options().pull_rate},
                    {"push_rate", a->options().push_rate},
                    {"buffer_bytes", pager_.buffer_bytes(a->id())}});
    if (const auto chunks = pager_.recorded(a->id()))
      list.back()["recording"] = {{"chunks", *chunks}};
    const pager::Puller* puller = pager_.puller(a->id());
    if (!puller) continue;
    list.back()["pulls_done"] = puller->done();
    list.back()["pulls_limited"] = puller->limited();
    if (const auto p = puller->progress()) {
      list.back()["pull"] = {{"offset", p->offset}, {"length", p->length}, {"done_bytes", p->done}};
    }
  }
  const pager::Pager::Memory memory = pager_.memory();
  return {{"instance", instance_},
          {"requests", pager_.requests_in_use()},
          {"buffer_bytes_free", pager_.buffer_bytes_free()},
          {"memory_bytes", memory.bytes},
          {"memory_bound_bytes", memory.bound},
          {"regions", std::move(list)}};
}

void Regions::push_all(std::chrono::milliseconds deadline, std::function<void()> done) {
  struct Progress {
    Progress(Reactor& reactor, std::function<void()> then)
        : done(std::move(then)), timer(reactor, [this] { finish(); }) {}
    void finish() {
      timer.disarm();
      if (done) std::exchange(done, nullptr)();
    }
    std::function<void()> done;
    Reactor::Timer timer;
    std::size_t left = 1;
  };
  auto progress = std::make_shared<Progress>(reactor_, std::move(done));
  progress->timer.arm(deadline);
  const auto one_less = [progress] {
    if (--progress->left == 0) progress->finish();
  };
  auto regions = kernel_.list();
  for (const auto& [name, a] : by_name_) {
    // A store that is away now will not be back within the deadline, or if it
    // is, the successor pushes.
    if (!a->up() || a->options().read_only) continue;
    if (regions.ok()) {
      const auto it = std::find_if(regions->begin(), regions->end(),
                                   [&, id = a->id()](const auto& r) { return r.id == id; });
      if (it != regions->end() && it->dirty_bytes + it->writeback_bytes == 0) continue;
    }
    ++progress->left;
    kernel_.sync(name, [one_less, a = a](const Status& s) {
      if (!s.ok()) a->log().warning("not everything is pushed: {}", s.cause());
      one_less();
    });
  }
  one_less();
}

void Regions::bury(Handle a) {
  if (a->source) a->source->close();
  // Keeps the attachment, hence the store, until nothing is owed any more.
  Attachment& leaving = *a;
  leaving.leave_pager(
      [this, a = std::move(a)]() mutable { reactor_.post([gone = std::move(a)] {}); });
}

}  // namespace rmem::control
