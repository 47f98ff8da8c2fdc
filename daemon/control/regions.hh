// SPDX-License-Identifier: MIT
// The regions of this daemon, and what can be done with them.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/log.hh"
#include "base/reactor.hh"
#include "base/result.hh"
#include "control/attachment.hh"
#include "control/kernel.hh"
#include "control/options.hh"
#include "control/recordings.hh"
#include "control/source.hh"
#include "pager/pager.hh"

namespace rmem::control {

// Carries out the verbs. The kernel's list of regions is the truth; what is
// kept here is the daemon's half of those that belong to its instance. Every
// call returns at once; `done` is called once, on the reactor's thread, possibly
// before the call returns.
class Regions {
 public:
  using Finished = std::function<void(const Status&)>;

  // All must outlive it but for stores, which it owns.
  Regions(Reactor& reactor, Kernel& kernel, pager::Pager& pager, SourceFactory& sources,
          std::string instance, Recordings recordings);
  ~Regions();

  // Serves again the regions of this instance that the kernel still has. Waits
  // for no server; fails only when the kernel does not answer. `settled` is called
  // later, on the reactor's thread: at once, unless a predecessor still holds some, which
  // is waited for no longer than `patience`.
  Status adopt(std::function<void()> settled,
               std::chrono::milliseconds patience = std::chrono::seconds(10));

  struct Attached {
    std::uint32_t id = 0;
    std::uint64_t size = 0;
    bool made = false;          // false: it was there already, with the same options
    bool bind_created = false;  // as noted when it was made
  };
  void attach(const AttachOptions& options, std::function<void(Result<Attached>)> done);

  struct Detached {
    std::string warning;           // for people; empty: all well
    std::uint64_t lost_bytes = 0;  // only by force
  };
  // By force: what the store cannot take now is lost, and who uses the region
  // gets errors.
  void detach(const std::string& name, bool force, std::function<void(Result<Detached>)> done);

  void sync(const std::string& name, Finished done);
  void drop(const std::string& name, Finished done);
  // Begins to make the range resident; length 0: to the end. The pull's number.
  Result<std::uint64_t> pull(const std::string& name, std::uint64_t offset, std::uint64_t length);

  // Bytes a second that may be pulled, and pushed while nobody waits for it; 0: no limit, nothing:
  // as it is.
  Status limit(const std::string& name, std::optional<std::uint64_t> pull_rate,
               std::optional<std::uint64_t> push_rate);

  // From now on notes in what order the region is touched, of which nothing but what cannot be
  // made durable is resident any more.
  void record(const std::string& name, Finished done);
  struct Recorded {
    std::size_t ranges = 0;
    std::uint64_t bytes = 0;
  };
  // Keeps what was noted, for --pull recorded. kUsage: nothing was. A detach does the same.
  Result<Recorded> stop_recording(const std::string& name);

  // The daemon's side of every region.
  nlohmann::json status() const;

  // Makes durable what can be, until `deadline` has passed. The regions stay;
  // the stores keep their claims.
  void push_all(std::chrono::milliseconds deadline, std::function<void()> done);

 private:
  using Handle = std::shared_ptr<Attachment>;
  struct Attaching;
  struct Detaching;

  void attach_again(const kchan::RegionInfo& info, const AttachOptions& options,
                    const std::function<void(Result<Attached>)>& done);
  void attach_opened(const std::shared_ptr<Attaching>& a, const Result<store::Geometry>& geometry);
  void attach_claimed(const std::shared_ptr<Attaching>& a, const Status& claimed);
  void attach_failed(const std::shared_ptr<Attaching>& a, Status why);

  void detach_synced(const std::shared_ptr<Detaching>& d, const Status& synced);
  void detach_unmade(const std::shared_ptr<Detaching>& d);
  // Of our instance, but not in our hands.
  Result<Detached> detach_foreign(const kchan::RegionInfo& info, bool force);

  void adopt(const kchan::RegionInfo& info);
  void adopt_held();
  // kNotFound, or why there is no such region here.
  Result<Handle> find(const std::string& name);
  // What --pull asks for.
  void begin_pull(const Attachment& a, std::uint64_t size);
  Result<Recorded> keep_recording(Attachment& a);
  void use_file(const std::string& name, bool drop, Finished done);
  // What a failed fsync means, given what is known about the source.
  // `refused`: the store has refused a write since the fsync began.
  static Status explain(const Attachment& a, const Status& status, bool refused);
  // Lets go of the attachment as soon as its store is quiet.
  void bury(Handle a);

  Reactor& reactor_;
  Kernel& kernel_;
  pager::Pager& pager_;
  SourceFactory& sources_;
  std::string instance_;
  Recordings recordings_;
  log::Source log_{"regions"};
  std::map<std::string, Handle> by_name_;

  // Adopting: what a predecessor holds, how long to try, and whom to tell.
  std::vector<std::string> held_;
  std::chrono::steady_clock::time_point held_until_;
  std::function<void()> settled_;
  Reactor::Timer held_timer_;
};

}  // namespace rmem::control
