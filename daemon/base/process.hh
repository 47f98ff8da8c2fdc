// SPDX-License-Identifier: MIT
// What a daemon on the path of page faults asks of the kernel for itself.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "base/reactor.hh"
#include "base/status.hh"
#include "base/unique_fd.hh"

namespace rmem {

// Locks all memory, present and future, as it is touched. Without it, the
// page that is needed to free memory may itself have been swapped out. Fails
// with kPermission, and changes nothing, where the memlock limit would let a
// later allocation fail.
Status lock_memory();

// PR_SET_IO_FLUSHER: this process helps the kernel write pages back, so its own
// allocations must not wait for such pages, nor is it throttled like those that
// dirty them. Needs CAP_SYS_RESOURCE.
Status set_io_flusher();

// This process has secrets: no core dump of it, and no tracing by others of its user.
void hide_memory();

// Raises the soft limit on open files to the hard one; best effort.
void raise_file_limit();

// The line `ready` on stdout, and READY=1 to the service manager if there is
// one (sd_notify(3)).
void announce_ready();

// STOPPING=1 to the service manager if there is one.
void announce_stopping();

// The sockets that the service manager passed to this process, in its order
// (sd_listen_fds_with_names(3)); none the second time, and none for children.
struct PassedSocket {
  UniqueFd fd;
  std::string name;  // FileDescriptorName= of its unit
};
std::vector<PassedSocket> take_passed_sockets();

// WATCHDOG=1 to the service manager, if it asked for that, twice in each period
// for as long as the loop turns: a loop that hangs is noticed, and the daemon
// replaced.
class Watchdog {
 public:
  explicit Watchdog(Reactor& reactor);

 private:
  std::chrono::microseconds period_;
  Reactor::Timer timer_;
};

}  // namespace rmem
