// SPDX-License-Identifier: MIT
// Stores as they are served: under names, to readers and to one writer.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/reactor.hh"
#include "base/result.hh"
#include "base/workers.hh"
#include "server/claims.hh"
#include "server/state_dir.hh"
#include "store/local_store.hh"
#include "store/spec.hh"
#include "store/store.hh"

namespace rmem::server {

// One handle of one connection that has claimed a store, or joined a claim.
class Claimant {
 public:
  // The same writer has claimed in a newer session: nothing more may come from
  // this one.
  virtual void superseded() = 0;
  // Another writer has taken over.
  virtual void fenced() = 0;

 protected:
  ~Claimant() = default;
};

// A store and its claim. Two exports of one file or directory are one
// ServedStore. Must not be destroyed while operations are outstanding, unless the
// workers are gone.
class ServedStore {
 public:
  // A store in memory: the claim lives as long as it does.
  explicit ServedStore(store::LocalStore store);
  // A file or directory, whose record `state` keeps; not owned.
  ServedStore(store::LocalStore store, const StateDir& state, StoreRecord record);

  store::Store& store() { return store_.store(); }
  // Null for memory.
  const store::FileFacts* facts() const { return store_.facts(); }
  Status check(const store::Spec& spec) const { return store_.check(spec); }

  // Grants or refuses. When `done` is called with 0, nothing that older sessions
  // sent is still to be applied; that may be later. Otherwise an errno: EBUSY,
  // ESTALE, EROFS, EIO (could not be made to last).
  using Claimed = std::function<void(int err, std::uint64_t generation)>;
  void claim(const ClaimRequest& request, Claimant& who, Claimed done);
  // For a page lane, which only reads, but has to learn of it when the claim of
  // its session is superseded or lost. 0; ESTALE: that writer is fenced; EPERM: no
  // such session has the claim.
  int join(const ClaimRequest& request, Claimant& who);
  // 0, or EIO if it could not be made to last.
  int release(Claimant& who);
  // Forgets a claimant whose session ends; the claim stays with the writer.
  void leave(Claimant& who);
  bool claimed_by(const Claimant& who) const;

  // Bracket every write and zero that is passed to store().
  void modification_started() { ++modifying_; }
  void modification_finished();

 private:
  struct Waiting {
    Claimant* who;
    Claimed done;
  };

  Status keep(const ClaimRecord& claim);

  store::LocalStore store_;
  const StateDir* state_ = nullptr;
  StoreRecord record_;
  std::uint64_t newest_session_ = 0;
  Claimant* holder_ = nullptr;     // the session that writes; null while there is none
  std::vector<Claimant*> joined_;  // page lanes of the newest session
  std::uint64_t modifying_ = 0;    // writes and zeros not yet completed
  std::vector<Waiting> waiting_;   // granted, to be told when modifying_ is 0
};

// NAME=STORE[,ro]
struct ExportSpec {
  std::string name;
  store::Spec store;
  bool read_only = false;

  // kUsage for anything else.
  static Result<ExportSpec> parse(std::string_view text);
};

struct Export {
  std::string name;
  bool read_only = false;
  ServedStore* store = nullptr;
};

// All that a server exports.
class Exports {
 public:
  // Opens every store. The state directory is opened only if something lasts.
  static Result<Exports> open(Reactor& reactor, Workers& workers,
                              const std::vector<ExportSpec>& specs, const std::string& state_dir);

  // Null if there is none.
  const Export* find(std::string_view name) const;
  const std::vector<std::unique_ptr<ServedStore>>& stores() const { return stores_; }

 private:
  Result<ServedStore*> add(Reactor& reactor, Workers& workers, const ExportSpec& spec,
                           const std::string& state_dir);
  ServedStore* same_as(const store::Spec& spec) const;

  std::unique_ptr<StateDir> state_;
  std::vector<std::unique_ptr<ServedStore>> stores_;
  std::vector<Export> exports_;
};

}  // namespace rmem::server
