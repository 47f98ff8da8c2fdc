// SPDX-License-Identifier: MIT
// Between a listener and whoever serves: lets through who has proved who it is.
#pragma once

#include <chrono>
#include <cstddef>
#include <list>
#include <memory>
#include <string>

#include "base/reactor.hh"
#include "transport/refusal_log.hh"
#include "transport/tls_connection.hh"
#include "transport/tls_credentials.hh"
#include "transport/transport.hh"

namespace rmem::transport {

// Handshakes cost memory and time before anything is known of the peer, so there are so
// many at a time and no more. Where one more comes, the oldest one of the address that has
// most of them makes room: who is honest is through within a few round trips.
class TlsAcceptor final : public Listener::Handler {
 public:
  struct Limits {
    std::chrono::milliseconds timeout{10'000};  // for one handshake
    std::size_t pending = 256;
  };

  // Not owned; must outlive the acceptor. `handler` gets connections of TLS.
  TlsAcceptor(Reactor& reactor, TlsFiles& files, const Limits& limits, Listener::Handler& handler);
  ~TlsAcceptor();

  void on_accept(std::unique_ptr<Connection> connection) override;
  // Counts from the next handshake on.
  void set_limits(const Limits& limits) { limits_ = limits; }
  std::size_t pending() const { return pending_.size(); }

 private:
  struct Pending;
  using Place = std::list<std::unique_ptr<Pending>>::iterator;

  void make_room();
  void shaken(Place place, const Status& status);
  void drop(Place place);

  Reactor& reactor_;
  TlsFiles& files_;
  Limits limits_;
  Listener::Handler& handler_;
  std::list<std::unique_ptr<Pending>> pending_;  // the oldest first
  std::list<std::unique_ptr<Pending>> gone_;     // to be destroyed, not from within themselves
  Reactor::TurnEnd bury_;
  Reactor::Timer next_timeout_;
  RefusalLog refusals_{"tls"};
};

}  // namespace rmem::transport
