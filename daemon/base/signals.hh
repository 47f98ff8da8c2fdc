// SPDX-License-Identifier: MIT
// SIGTERM, SIGINT, SIGHUP and SIGUSR1 as events of the loop.
#pragma once

#include <functional>
#include <memory>

#include "base/reactor.hh"
#include "base/unique_fd.hh"

namespace rmem {

// Blocks SIGTERM, SIGINT, SIGHUP and SIGUSR1 for the calling thread and those it starts
// later (so make it before any thread), and calls `on_signal` on the reactor's thread
// for each that arrives. SIGPIPE and SIGXFSZ are ignored from then on: a peer that
// went away is an EPIPE, a file that may not grow is an EFBIG. Must not outlive the reactor.
class Signals final : private Reactor::Handler {
 public:
  static Result<std::unique_ptr<Signals>> create(Reactor& reactor,
                                                 std::function<void(int)> on_signal);
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

 private:
  Signals(Reactor& reactor, UniqueFd fd, std::function<void(int)> on_signal);
  void on_events(std::uint32_t events) override;

  Reactor& reactor_;
  UniqueFd fd_;
  std::function<void(int)> on_signal_;
};

}  // namespace rmem
