// SPDX-License-Identifier: MIT
// QUIC (RFC 9000) by ngtcp2 and GnuTLS, where it was there to build with.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

#include "base/reactor.hh"
#include "transport/address.hh"
#include "transport/tls_credentials.hh"
#include "transport/transport.hh"
#include "transport/udp_socket.hh"

namespace rmem::transport {

// Null: this build has none. Otherwise the version of the library.
const char* quic_version();
// What to say then.
Status quic_absent();

// A client's connection, to become one: resolved once hands have been shaken or could not be.
class QuicDialer {
 public:
  using Done = std::function<void(Result<std::unique_ptr<Connection>>)>;
  virtual ~QuicDialer() = default;
};

// `host`: the name or address that the server's certificate has to be for. `done` is not
// called before this returns, nor after the destruction of the dialer, which it may destroy.
// How long it may take is the caller's business. Errors as those of TlsConnection.
Result<std::unique_ptr<QuicDialer>> quic_dial(Reactor& reactor,
                                              std::shared_ptr<const TlsCredentials> credentials,
                                              const SocketAddress& remote, const std::string& host,
                                              QuicDialer::Done done);

struct QuicLimits {
  std::chrono::milliseconds handshake{10'000};
  // Handshakes under way at a time: from a quarter of them on, a client has to show first that
  // it is where it says it is (Retry, RFC 9000, section 8.1.2); beyond them it is not answered.
  std::size_t pending = 256;
  std::size_t pending_per_host = 32;
};

// Hands over connections whose peers have proved who they are.
class QuicListener : public Listener {
 public:
  virtual const SocketAddress& address() const = 0;
  // Counts from the next handshake on.
  virtual void set_limits(const QuicLimits& limits) = 0;
};

// The key of stateless resets (RFC 9000, section 10.3): a server that has it from the one before
// it tells that one's clients at once that their connections are gone. Who knows it can cut them
// off.
using QuicResetKey = std::array<std::uint8_t, 32>;

// With a socket of UDP, bound where it shall listen; `files` and `handler` must outlive the
// listener. Connections outlive it.
Result<std::unique_ptr<QuicListener>> quic_listen(Reactor& reactor, UdpSocket socket,
                                                  TlsFiles& files, const QuicLimits& limits,
                                                  const QuicResetKey& key,
                                                  Listener::Handler& handler);

}  // namespace rmem::transport
