// SPDX-License-Identifier: MIT
// Host names to addresses without blocking the loop.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/reactor.hh"
#include "base/unique_fd.hh"
#include "transport/address.hh"

namespace rmem::transport {

// One look-up. The resolver library knows no timeout and no cancellation, so it
// runs in a detached thread of its own, which is simply forgotten when the
// Resolver goes first. Numeric addresses need no thread.
class Resolver final : private Reactor::Handler {
 public:
  using Done = std::function<void(Result<std::vector<SocketAddress>>)>;

  Resolver(Reactor& reactor, Done done) : reactor_(reactor), done_(std::move(done)) {}
  ~Resolver();
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

  // Once. `done` is called on the reactor's thread, possibly before this
  // returns; it may destroy the Resolver.
  void start(const std::string& host, std::uint16_t port);

 private:
  struct Lookup;  // shared with the thread
  void finish(Result<std::vector<SocketAddress>> result);
  void on_events(std::uint32_t events) override;

  Reactor& reactor_;
  Done done_;
  std::shared_ptr<Lookup> lookup_;
};

}  // namespace rmem::transport
