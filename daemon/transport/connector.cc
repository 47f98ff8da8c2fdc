// SPDX-License-Identifier: MIT
#include "transport/connector.hh"

#include <sys/epoll.h>

#include <cerrno>

#include "transport/socket.hh"

namespace rmem::transport {

using namespace std::chrono_literals;

Connector::Connector(Reactor& reactor, bool local_only, Done done, std::optional<Tls> tls)
    : reactor_(reactor),
      local_only_(local_only),
      done_(std::move(done)),
      tls_(std::move(tls)),
      patience_(reactor, [this] { failed(Status::from_errno(ETIMEDOUT, "no answer")); }) {}

Connector::~Connector() {
  if (fd_) reactor_.remove(fd_.get());
}

void Connector::start(const Address& address) {
  name_ = address.to_string();
  if (address.is_unix()) {
    auto made = unix_address(address.path);
    if (!made) return finish(made.status());
    addresses_ = {*made};
    return try_next();
  }
  resolver_.emplace(reactor_, [this](const Result<std::vector<SocketAddress>>& resolved) {
    if (!resolved) return finish(resolved.status());
    addresses_ = *resolved;
    if (local_only_)
      for (const SocketAddress& found : addresses_)
        if (!found.local())
          return finish(
              Status(Code::kUsage,
                     name_ + " is " + found.to_string() +
                         ", another host, and the connection would not be encrypted",
                     "use rmems:// (TLS), or --insecure if you trust the network in between"));
    try_next();
  });
  resolver_->start(address.host, address.port);
}

void Connector::start(const SocketAddress& address) {
  name_ = address.to_string();
  addresses_ = {address};
  try_next();
}

void Connector::try_next() {
  if (next_ == addresses_.size()) return finish(last_);
  const SocketAddress& address = addresses_[next_++];
  if (tls_ && tls_->quic) return dial(address);
  fd_.reset(::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd_) return failed(Status::from_errno(errno, "socket"));
  tune_socket(fd_.get(), address.family(), true);
  if (::connect(fd_.get(), address.get(), address.length) == 0) return connected();
  // A unix socket with a full backlog says EAGAIN and stays unconnected.
  if (errno != EINPROGRESS) return failed(Status::from_errno(errno, "connect"));
  if (const Status added = reactor_.add(fd_.get(), EPOLLOUT, *this); !added.ok())
    return failed(added);
  // The kernel would go on for minutes, asking ever more rarely; a new try finds
  // a network that has come back sooner.
  patience_.arm(is_last() ? 2s : 1s);
}

void Connector::on_events(std::uint32_t) {
  int err = 0;
  socklen_t length = sizeof err;
  ::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &err, &length);
  if (err != 0) return failed(Status::from_errno(err, "connect"));
  connected();
}

void Connector::connected() {
  patience_.disarm();
  reactor_.remove(fd_.get());
  auto connection =
      std::make_unique<SocketConnection>(reactor_, std::move(fd_), addresses_[next_ - 1]);
  if (tls_) return shake_hands(std::move(connection));
  finish(std::unique_ptr<Connection>(std::move(connection)));
}

// With QUIC to connect is to shake hands.
void Connector::dial(const SocketAddress& address) {
  auto credentials = tls_->files.current();
  if (!credentials) return finish(credentials.status());
  auto made = quic_dial(reactor_, std::move(credentials).value(), address, tls_->host,
                        [this](Result<std::unique_ptr<Connection>> dialed) {
                          if (!dialed && dialed.status().code() != Code::kPermission)
                            return failed(dialed.status());
                          patience_.disarm();
                          finish(std::move(dialed));
                        });
  if (!made) return failed(made.status());
  dialing_ = std::move(made).value();
  // Over UDP nothing says that somebody is there until hands have been shaken: a far server
  // that is busy may need longer.
  if (!is_last()) patience_.arm(2s);
}

// Another address would be the same server, or an impostor as well: no second try.
void Connector::shake_hands(std::unique_ptr<Connection> connection) {
  auto credentials = tls_->files.current();
  if (!credentials) return finish(credentials.status());
  auto made = TlsConnection::create(reactor_, std::move(credentials).value(), std::move(connection),
                                    tls_->host);
  if (!made) return finish(made.status());
  shaking_ = std::move(made).value();
  shaking_->shake_hands([this](const Status& shaken) {
    if (!shaken.ok()) return finish(shaken);
    finish(std::unique_ptr<Connection>(std::move(shaking_)));
  });
}

void Connector::failed(const Status& status) {
  patience_.disarm();
  if (fd_) reactor_.remove(fd_.get());
  fd_.reset();
  dialing_.reset();
  const int err = status.err();
  // Whatever the reason, who wants to connect hears that he cannot reach it;
  // only a missing socket file and a lack of rights are something else.
  const bool file = addresses_[next_ - 1].family() == AF_UNIX;
  Code code = Code::kUnreachable;
  if (file && (err == EACCES || err == EPERM)) code = Code::kPermission;
  if (err == EMFILE || err == ENFILE || err == ENOMEM) code = Code::kFailed;
  last_ = Status(code, "cannot connect to " + name_ + ": " + status.cause(),
                 "is rmem-server running there, and may this host reach it?", err);
  try_next();
}

void Connector::finish(Result<std::unique_ptr<Connection>> result) {
  const Done done = std::move(done_);  // which may destroy this
  done(std::move(result));
}

}  // namespace rmem::transport
