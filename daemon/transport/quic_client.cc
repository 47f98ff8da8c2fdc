// SPDX-License-Identifier: MIT
// A client's QUIC: a socket for each connection, and another one when its address has gone.
#include <gnutls/crypto.h>
#include <sys/epoll.h>

#include <cerrno>
#include <utility>

#include "base/log.hh"
#include "transport/quic.hh"
#include "transport/quic_link.hh"

namespace rmem::transport {
namespace {

using namespace std::chrono_literals;

const log::Source kMoveLog("quic");

// Lives as long as its link, which may be longer than anybody knows of it.
class ClientPort final : public QuicLink::Port, private Reactor::Handler {
 public:
  using Done = QuicDialer::Done;

  static Result<std::shared_ptr<ClientPort>> create(
      Reactor& reactor, std::shared_ptr<const TlsCredentials> credentials,
      const SocketAddress& remote, const std::string& host, Done done) {
    auto socket = UdpSocket::connect(remote);
    if (!socket) return socket.status();
    auto port = std::make_shared<ClientPort>(reactor, std::move(socket).value(), remote);
    port->done_ = std::move(done);
    if (const Status s = reactor.add(port->socket_.fd(), EPOLLIN, *port); !s.ok()) return s;
    QuicLink::Start start;
    start.credentials = std::move(credentials);
    start.local = port->socket_.local();
    start.remote = remote;
    start.host = host;
    auto link = QuicLink::create(reactor, *port, start);
    if (!link) return link.status();
    port->link_ = std::move(link).value();
    reactor.keep(port);
    return port;
  }

  ClientPort(Reactor& reactor, UdpSocket socket, const SocketAddress& remote)
      : reactor_(reactor), socket_(std::move(socket)), remote_(remote) {}
  ~ClientPort() { reactor_.remove(socket_.fd()); }

  // Nobody waits for the handshake any more.
  void give_up() {
    if (std::exchange(done_, nullptr)) link_->abandon();
  }

 private:
  int send(const UdpSocket::Batch& batch) override {
    const int err = socket_.send(batch);
    // The address is no longer ours, or there is no way from it any more.
    if (err == EINVAL || err == EADDRNOTAVAIL || err == ENETUNREACH || err == EHOSTUNREACH ||
        err == ENETDOWN)
      lost_address_ = true;
    return err;
  }
  void wait_writable() override { (void)reactor_.modify(socket_.fd(), EPOLLIN | EPOLLOUT); }
  void add(const QuicLink::Id&, QuicLink&) override {}
  void remove(const QuicLink::Id&) override {}
  // We never lose our state and live on, so nobody needs to know it again.
  void reset_token(const QuicLink::Id&, std::uint8_t* token) override {
    gnutls_rnd(GNUTLS_RND_KEY, token, NGTCP2_STATELESS_RESET_TOKENLEN);
  }
  void shaken(QuicLink&, const Status& status) override {
    const Done done = std::exchange(done_, nullptr);
    if (!done) return;
    if (!status.ok()) return done(status);
    done(std::unique_ptr<Connection>(std::make_unique<QuicConnection>(link_)));
  }
  // Packets do not come back. Is the way to the server another one by now?
  void silent(QuicLink& link) override {
    if (done_) return;
    auto fresh = UdpSocket::connect(remote_);
    if (!fresh) return;  // there is none, for the moment
    if (!lost_address_ && same_host(fresh->local(), socket_.local())) return;
    UdpSocket old = std::exchange(socket_, std::move(fresh).value());
    reactor_.remove(old.fd());
    lost_address_ = false;
    if (const Status s = reactor_.add(socket_.fd(), EPOLLIN, *this); !s.ok()) return;
    const Status moved = link.move_to(socket_.local());
    if (moved.ok())
      kMoveLog.info("{}: now from {}", link.peer(), socket_.local().to_string());
    else
      kMoveLog.debug("{}: {}", link.peer(), moved.cause());
  }
  static bool same_host(const SocketAddress& one, const SocketAddress& other) {
    return host_of(one.to_string()) == host_of(other.to_string());
  }
  void dead(QuicLink&) override {
    (void)reactor_.modify(socket_.fd(), 0);
    reactor_.let_go(this);
  }

  void on_events(std::uint32_t events) override {
    const auto link = link_;
    if ((events & EPOLLOUT) != 0) {
      (void)reactor_.modify(socket_.fd(), EPOLLIN);
      link->on_writable();
    }
    UdpSocket::Batch batch;
    // So many that others get their turn.
    for (int i = 0; i < 64 && !link->is_dead(); ++i) {
      const int err = socket_.receive(batch);
      if (err == EAGAIN) return;
      if (err == ECONNREFUSED && done_) {
        link->abandon();
        const Done done = std::exchange(done_, nullptr);
        return done(Status::from_errno(err, "nobody listens there"));
      }
      if (err != 0) return;  // of packets that could not be delivered; QUIC sends them again
      batch.from = remote_;
      link->on_packets(batch);
    }
  }

  Reactor& reactor_;
  UdpSocket socket_;
  const SocketAddress remote_;
  std::shared_ptr<QuicLink> link_;
  Done done_;  // while hands are being shaken
  bool lost_address_ = false;
};

class Dialer final : public QuicDialer {
 public:
  explicit Dialer(const std::shared_ptr<ClientPort>& port) : port_(port) {}
  ~Dialer() override {
    if (const auto port = port_.lock()) port->give_up();
  }

 private:
  const std::weak_ptr<ClientPort> port_;
};

}  // namespace

const char* quic_version() { return ngtcp2_version(0)->version_str; }
Status quic_absent() { return Status(); }

Result<std::unique_ptr<QuicDialer>> quic_dial(Reactor& reactor,
                                              std::shared_ptr<const TlsCredentials> credentials,
                                              const SocketAddress& remote, const std::string& host,
                                              QuicDialer::Done done) {
  auto port = ClientPort::create(reactor, std::move(credentials), remote, host, std::move(done));
  if (!port) return port.status();
  return std::unique_ptr<QuicDialer>(std::make_unique<Dialer>(*port));
}

}  // namespace rmem::transport
