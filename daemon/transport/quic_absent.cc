// SPDX-License-Identifier: MIT
// Instead of the other quic_*.cc where ngtcp2 was not there to build with.
#include "transport/quic.hh"

namespace rmem::transport {

const char* quic_version() { return nullptr; }

Status quic_absent() {
  return Status(Code::kUsage, "this build has no QUIC, as ngtcp2 1.x was not there",
                "use tls:// and rmems:// (TLS over TCP), or build with libngtcp2-dev and "
                "libngtcp2-crypto-gnutls-dev, 1.11 or later");
}

Result<std::unique_ptr<QuicDialer>> quic_dial(Reactor&, std::shared_ptr<const TlsCredentials>,
                                              const SocketAddress&, const std::string&,
                                              QuicDialer::Done) {
  return quic_absent();
}

Result<std::unique_ptr<QuicListener>> quic_listen(Reactor&, UdpSocket, TlsFiles&, const QuicLimits&,
                                                  const QuicResetKey&, Listener::Handler&) {
  return quic_absent();
}

}  // namespace rmem::transport
