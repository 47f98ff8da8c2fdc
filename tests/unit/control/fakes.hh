// SPDX-License-Identifier: MIT
// A kernel and sources for the daemon's verbs.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "control/kernel.hh"
#include "control/regions.hh"
#include "control/source.hh"

namespace rmem::control {

// Keeps regions as the module would, without pages.
class FakeModule final : public Kernel {
 public:
  Result<std::vector<kchan::RegionInfo>> list() override {
    std::vector<kchan::RegionInfo> all;
    for (const auto& [id, r] : regions) all.push_back(r);
    return all;
  }
  Result<kchan::RegionInfo> get(const std::string& name) override {
    for (const auto& [id, r] : regions) {
      if (r.name == name) return r;
    }
    return Status(Code::kNotFound, "region " + name + ": no such region", {}, ENOENT);
  }
  Result<kchan::Netlink::Made> make(const kchan::RegionInfo& wanted) override {
    if (get(wanted.name).ok()) return Status(Code::kBusy, "exists", {}, EEXIST);
    kchan::RegionInfo r = wanted;
    r.id = ++last_id;
    r.writer.fill(static_cast<std::uint8_t>(r.id));
    regions[r.id] = r;
    return kchan::Netlink::Made{r.id, r.writer};
  }
  Status set_blob(std::uint32_t id, const std::string& blob) override {
    regions.at(id).blob = blob;
    return Status();
  }
  Status unmake(std::uint32_t id) override {
    if (in_use) return Status(Code::kBusy, "in use", {}, EBUSY);
    regions.erase(id);
    return Status();
  }
  Result<std::uint64_t> unmake_by_force(std::uint32_t id) override {
    const auto it = regions.find(id);
    if (it == regions.end()) return Status(Code::kNotFound, "gone", {}, ENOENT);
    const std::uint64_t lost = it->second.dirty_bytes;
    regions.erase(it);
    return lost;
  }
  int serve(std::uint32_t id) override {
    served.push_back(id);
    if (serve_error == 0 || serve_errors == 0 || id < serve_error_from) return 0;
    --serve_errors;
    return serve_error;
  }
  void sync(const std::string& name, Finished done) override {
    syncs.push_back(name);
    if (hold) {
      held.push_back(std::move(done));
    } else {
      done(sync_result);
    }
  }
  void drop(const std::string& name, Finished done) override {
    drops.push_back(name);
    done(Status());
  }

  std::map<std::uint32_t, kchan::RegionInfo> regions;
  std::uint32_t last_id = 0;
  std::vector<std::uint32_t> served;
  int serve_error = 0;
  int serve_errors = 1000;             // so often
  std::uint32_t serve_error_from = 0;  // for regions with this number or a higher one
  bool in_use = false;
  Status sync_result;
  bool hold = false;
  std::vector<Finished> held;
  std::vector<std::string> syncs;
  std::vector<std::string> drops;
};

// A store that answers everything at once.
class InstantStore final : public store::Store {
 public:
  const store::Geometry& geometry() const override { return geometry_; }
  void read(std::uint64_t, std::span<std::byte>, store::Done done, store::Urgency) override {
    done({0, 1});
  }
  void write(std::uint64_t, std::span<const std::byte>, store::Done done) override { done({0, 1}); }
  void zero(std::uint64_t, std::uint64_t, store::Done done) override { done({0, 1}); }
  void flush(store::Done done) override { done({0, 1}); }
  store::Geometry geometry_;
};

// What a test wants of the sources that are made next, and what they were told.
struct Script {
  store::Geometry geometry{1 << 20, false, {1, 2, 3}, 1};
  Status open_result;
  Status claim_result;
  bool hold_open = false;
  bool hold_release = false;
  Status release_result;
  int opened = 0, claims = 0, resumed = 0, released = 0, closed = 0, alive = 0;
  store::WriterClaim last_claim;
  SourceOptions last_options;
  std::function<void()> continue_open;
  std::function<void()> continue_release;
  Source::Listener* listener = nullptr;
};

class FakeSource final : public Source {
 public:
  explicit FakeSource(Script& script) : script_(script) { ++script_.alive; }
  unsigned lanes() const override { return 2; }
  ~FakeSource() override { --script_.alive; }
  void open(Opened done) override {
    ++script_.opened;
    opening_ = std::move(done);
    auto answer = [this] {
      const Opened done = std::exchange(opening_, nullptr);
      if (!done) return;
      if (script_.open_result.ok()) {
        done(script_.geometry);
      } else {
        done(script_.open_result);
      }
    };
    if (script_.hold_open) {
      script_.continue_open = std::move(answer);
    } else {
      answer();
    }
  }
  void resume(std::optional<store::WriterClaim> claim) override {
    ++script_.resumed;
    if (claim) script_.last_claim = *claim;
  }
  void claim(const store::WriterClaim& claim, Finished done) override {
    ++script_.claims;
    script_.last_claim = claim;
    claimed_ = script_.claim_result.ok();
    done(script_.claim_result);
  }
  std::uint64_t claim_generation() const override { return claimed_ ? 42 : 0; }
  void release(Finished done) override {
    ++script_.released;
    if (script_.hold_release) {
      script_.continue_release = [this, done] { done(script_.release_result); };
    } else {
      done(script_.release_result);
    }
  }
  void close() override {
    ++script_.closed;
    if (opening_) std::exchange(opening_, nullptr)(Status(Code::kUnreachable, "closed"));
  }
  store::Store& store() override { return store_; }

 private:
  Script& script_;
  InstantStore store_;
  Opened opening_;
  bool claimed_ = false;
};

class FakeSources final : public SourceFactory {
 public:
  Result<std::unique_ptr<Source>> make(const std::string& uri, const SourceOptions& options,
                                       Source::Listener& listener) override {
    if (uri.starts_with("bad:")) return Status(Code::kUsage, "`" + uri + "' is no URI");
    script.last_options = options;
    script.listener = &listener;
    return std::unique_ptr<Source>(new FakeSource(script));
  }
  bool is_local(const std::string& uri) const override { return uri.starts_with("file:"); }

  Script script;
};

class NoChannel final : public kchan::KernelChannel {
 public:
  int serve(std::uint32_t) override { return 0; }
  int push(std::uint32_t) override { return 0; }
  int fill(std::uint64_t, std::uint64_t, std::span<const std::byte>, std::uint32_t) override {
    return 0;
  }
  int fill_zeros(std::uint64_t, std::uint64_t, std::uint32_t) override { return 0; }
  bool receives() const override { return false; }
  Received receive(std::uint64_t, std::uint64_t, std::uint64_t, int, std::uint32_t,
                   const std::optional<std::uint32_t>&) override {
    return {0, ENOENT, 0};
  }
  bool asks() const override { return false; }
  int lane(std::uint32_t, const Lane&, bool&) override { return ENOENT; }
  LaneEnd end_lane(std::uint32_t, std::span<std::byte>) override { return {}; }
  int complete(std::span<const std::uint64_t>, int) override { return 0; }
  int write_out(std::uint64_t, std::span<std::byte>, std::span<rmem_run>, std::uint64_t&,
                std::uint32_t&) override {
    return ENOENT;
  }
  bool sends() const override { return false; }
  int write_runs(std::uint64_t, std::span<rmem_write_run>, std::uint32_t&) override {
    return ENOENT;
  }
  Sent send(std::uint32_t, std::uint64_t, std::uint64_t, int) override { return {0, ENOENT, 0}; }
  int prefetch(std::uint32_t, std::uint64_t, std::uint64_t, std::uint32_t,
               std::uint32_t&) override {
    return 0;
  }
  int set_state(std::uint32_t id, std::uint32_t state, std::string_view why) override {
    states[id] = state;
    reasons[id] = why;
    return 0;
  }
  std::map<std::uint32_t, std::uint32_t> states;
  std::map<std::uint32_t, std::string> reasons;
};

}  // namespace rmem::control
