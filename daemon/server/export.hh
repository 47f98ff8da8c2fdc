// SPDX-License-Identifier: MIT
// Stores as they are served: under names, to readers and to one writer.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/reactor.hh"
#include "base/result.hh"
#include "base/workers.hh"
#include "server/access.hh"
#include "server/claims.hh"
#include "server/state_dir.hh"
#include "server/throttle.hh"
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
  // For another lane of the session that has the claim: a part in it, and the same fate
  // when that is superseded or lost. 0; ESTALE: that writer is fenced; EPERM: no such
  // session has the claim.
  int join(const ClaimRequest& request, Claimant& who);
  // 0, or EIO if it could not be made to last.
  int release(Claimant& who);
  // Forgets a claimant whose session ends; the claim stays with the writer.
  void leave(Claimant& who);
  // Or joined by.
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

// What is to be served.
struct ExportSpec {
  std::string name;
  store::Spec store;
  bool read_only = false;
  std::optional<AllowList> allow;  // unset: usual_list()
  std::uint64_t read_rate = 0;     // bytes a second of all its sessions; 0: no limit
  std::uint64_t write_rate = 0;

  // NAME=STORE[,ro]; kUsage for anything else.
  static Result<ExportSpec> parse(std::string_view text);
  // NAME=IDENTITY[,ro]: one more who may, of the one of that name. kUsage for anything else.
  static Status allow_one(std::vector<ExportSpec>& specs, std::string_view text);
  // kUsage: cannot be the name of an export.
  static Status check_name(std::string_view name);
};

// A store under a name. Sessions that have it open keep it, also when it is not exported
// any more.
struct Export {
  Export(Reactor& reactor, std::string name, store::Spec spec, std::shared_ptr<ServedStore> store);

  const std::string name;
  const store::Spec spec;
  const std::shared_ptr<ServedStore> store;
  // What may change while it is served.
  bool read_only = false;
  AllowList allow;
  Throttle reads;
  Throttle writes;

  Access access(const Peer& peer) const;
};

// All that a server exports.
class Exports {
 public:
  // Opens every store. The state directory is opened only if something lasts.
  static Result<Exports> open(Reactor& reactor, Workers& workers,
                              const std::vector<ExportSpec>& specs, const std::string& state_dir,
                              bool insecure = false);

  // Exports these from now on, and nothing else; what stays the same goes on as it is.
  // Otherwise says what is wrong, and nothing has changed. Blocks on the disk, as open().
  Status replace(const std::vector<ExportSpec>& specs);
  // Closes the stores that nobody has any more.
  void sweep();

  // The state directory, opened if it was not yet.
  Result<StateDir*> state();
  // Null if there is none.
  std::shared_ptr<Export> find(std::string_view name) const;
  // Is anything not for everybody? Then those whom it is not for cannot tell it from what
  // there is not.
  bool has_secrets() const;
  // Those that are not exported any more, but in use, as well.
  const std::vector<std::shared_ptr<ServedStore>>& stores() const { return stores_; }

 private:
  Exports(Reactor& reactor, Workers& workers, std::string state_dir, bool insecure)
      : reactor_(&reactor),
        workers_(&workers),
        state_dir_(std::move(state_dir)),
        usual_(usual_list(insecure)) {}
  Result<std::shared_ptr<ServedStore>> store_for(const ExportSpec& spec);
  std::shared_ptr<ServedStore> same_as(const store::Spec& spec, bool read_only) const;

  Reactor* reactor_;
  Workers* workers_;
  std::string state_dir_;
  AllowList usual_;  // of an export that does not say
  std::unique_ptr<StateDir> state_;
  std::vector<std::shared_ptr<ServedStore>> stores_;
  std::map<std::string, std::shared_ptr<Export>, std::less<>> exports_;
};

}  // namespace rmem::server
