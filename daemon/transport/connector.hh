// SPDX-License-Identifier: MIT
// From an address to a connection.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/reactor.hh"
#include "transport/address.hh"
#include "transport/quic.hh"
#include "transport/resolver.hh"
#include "transport/tls_connection.hh"
#include "transport/tls_credentials.hh"
#include "transport/transport.hh"

namespace rmem::transport {

// Resolves, then tries the addresses one after the other; one that is silent
// for a second makes room for the next, and the last one has two. With TLS, who has
// answered has to prove who it is; how long that takes is for the owner to limit, as it
// is for all of it, by destroying the connector.
class Connector final : private Reactor::Handler {
 public:
  using Done = std::function<void(Result<std::unique_ptr<Connection>>)>;

  // Over TLS: by what, and for which name the server's certificate has to be.
  struct Tls {
    TlsFiles& files;
    std::string host;
    bool quic = false;  // and not TCP
  };

  // `local_only`: connect to addresses of this host only; kUsage if the name
  // turns out to have others.
  Connector(Reactor& reactor, bool local_only, Done done, std::optional<Tls> tls = std::nullopt);
  ~Connector();
  Connector(const Connector&) = delete;
  Connector& operator=(const Connector&) = delete;

  // Once. `done` may be called before this returns, and may destroy the
  // connector. kUnreachable: nobody answers; kNotFound: no such host or socket.
  void start(const Address& address);
  // The same where the address is known.
  void start(const SocketAddress& address);
  // What it has connected to.
  const SocketAddress& connected_to() const { return addresses_[next_ - 1]; }

 private:
  void try_next();
  void connected();
  void shake_hands(std::unique_ptr<Connection> connection);
  void dial(const SocketAddress& address);
  bool is_last() const { return next_ == addresses_.size(); }
  void failed(const Status& status);
  void finish(Result<std::unique_ptr<Connection>> result);
  void on_events(std::uint32_t events) override;

  Reactor& reactor_;
  const bool local_only_;
  Done done_;
  const std::optional<Tls> tls_;
  std::unique_ptr<TlsConnection> shaking_;
  std::unique_ptr<QuicDialer> dialing_;
  std::string name_;  // what is connected to, for messages
  std::optional<Resolver> resolver_;
  std::vector<SocketAddress> addresses_;
  std::size_t next_ = 0;  // of addresses_
  UniqueFd fd_;           // of addresses_[next_ - 1], while connecting
  Status last_;           // why the latest try failed
  Reactor::Timer patience_;
};

}  // namespace rmem::transport
