// SPDX-License-Identifier: MIT
#include "server/server.hh"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/log.hh"
#include "base/uuid.hh"

namespace rmem::server {
namespace {

const log::Source kLog("server");

// Connections beyond the limits that are told so at a time. Even more are just closed.
constexpr std::size_t kMostTurnedAway = 1024;

}  // namespace

Result<std::unique_ptr<Server>> Server::create(Reactor& reactor, const ServerOptions& options) {
  auto workers = Workers::create(reactor, options.workers);
  if (!workers) return workers.status();
  auto exports =
      Exports::open(reactor, **workers, options.exports, options.state_dir, options.insecure);
  if (!exports) return exports.status();
  return std::unique_ptr<Server>(
      new Server(reactor, options, std::move(workers).value(), std::move(exports).value()));
}

Server::Server(Reactor& reactor, const ServerOptions& options, std::unique_ptr<Workers> workers,
               Exports exports)
    : reactor_(reactor),
      options_(options),
      exports_(std::move(exports)),
      workers_(std::move(workers)),
      admission_(options.limits),
      buffers_(options.memory),
      tls_(transport::TlsSide::kServer, options.tls),
      bury_(reactor, [this] { bury(); }),
      patience_(reactor, [this] { out_of_patience(); }) {}

Server::~Server() {
  listeners_.clear();
  quic_listeners_.clear();
  tls_acceptor_.reset();
  // First the threads, which use the buffers of sessions and stores.
  workers_.reset();
  guests_.clear();
}

Status Server::may_listen(const transport::SocketAddress& address, const std::string& name) const {
  if (options_.insecure || address.local()) return Status();
  return Status(Code::kUsage,
                name + ": plain TCP off loopback is neither encrypted nor authenticated",
                "listen at tls://, at 127.0.0.1, [::1] or a unix socket; or give --insecure if "
                "you trust everybody who can reach the port");
}

transport::TlsAcceptor::Limits Server::handshakes() const {
  return {.timeout = options_.session.handshake_timeout};
}

transport::QuicLimits Server::quic_limits() const {
  return {.handshake = options_.session.handshake_timeout};
}

Result<transport::Listener::Handler*> Server::acceptor(transport::Address::Kind kind) {
  using Kind = transport::Address::Kind;
  if (kind == Kind::kPlain) return static_cast<transport::Listener::Handler*>(this);
  // What is wrong with the files is to be known now.
  if (const auto credentials = tls_.current(); !credentials) return credentials.status();
  // QUIC shakes hands itself.
  if (kind == Kind::kQuic) return static_cast<transport::Listener::Handler*>(this);
  if (!tls_acceptor_) {
    transport::Listener::Handler& self = *this;  // a private base, which make_unique does not see
    tls_acceptor_ = std::make_unique<transport::TlsAcceptor>(reactor_, tls_, handshakes(), self);
  }
  return static_cast<transport::Listener::Handler*>(tls_acceptor_.get());
}

Status Server::listen(const transport::Address& address) {
  const auto to = acceptor(address.kind);
  if (!to) return to.status().with_context(address.to_string());
  if (!address.is_unix() && !address.secure() && !options_.insecure) {
    auto resolved = transport::resolve(address.host, address.port, true, false);
    if (!resolved) return resolved.status();
    for (const transport::SocketAddress& one : *resolved)
      if (Status may = may_listen(one, address.to_string()); !may.ok()) return may;
  }
  if (address.kind == transport::Address::Kind::kQuic) {
    auto resolved = transport::resolve(address.host, address.port, true, false);
    if (!resolved) return resolved.status();
    for (const transport::SocketAddress& one : *resolved)
      if (Status s = listen_quic(transport::UdpSocket::bind(one), **to); !s.ok())
        return s.with_context(address.to_string());
    return Status();
  }
  auto listeners = transport::SocketListener::listen(reactor_, address, **to);
  if (!listeners) return listeners.status();
  for (auto& listener : *listeners) listeners_.push_back(std::move(listener));
  return Status();
}

Status Server::listen_quic(Result<transport::UdpSocket> socket, transport::Listener::Handler& to) {
  if (!socket) return socket.status();
  auto listener = transport::quic_listen(reactor_, std::move(socket).value(), tls_, quic_limits(),
                                         quic_reset_key(), to);
  if (!listener) return listener.status();
  quic_listeners_.push_back(std::move(listener).value());
  return Status();
}

transport::QuicResetKey Server::quic_reset_key() {
  const auto state = exports_.state();
  const auto kept = state ? (*state)->secret("quic-reset-key") : state.status();
  if (kept) return *kept;
  // Those of the server before this one are gone, then, when they have heard nothing for long.
  kLog.info("a new key of stateless resets: {}", kept.status().cause());
  transport::QuicResetKey key;
  for (std::size_t at = 0; at < key.size(); at += sizeof(std::uint64_t)) {
    const std::uint64_t random = random_u64();
    std::memcpy(key.data() + at, &random, sizeof random);
  }
  return key;
}

Status Server::listen(PassedSocket passed) {
  using Kind = transport::Address::Kind;
  if (transport::UdpSocket::is_udp(passed.fd.get())) {
    const auto to = acceptor(Kind::kQuic);
    if (!to) return to.status().with_context("the socket of UDP passed");
    return listen_quic(transport::UdpSocket::adopt(std::move(passed.fd)), **to);
  }
  const bool tls = passed.name == "tls";
  const auto to = acceptor(tls ? Kind::kTls : Kind::kPlain);
  if (!to) return to.status().with_context("the socket passed as `tls'");
  auto listener = transport::SocketListener::adopt(reactor_, std::move(passed.fd), **to);
  if (!listener) return listener.status();
  const transport::SocketAddress& at = (*listener)->address();
  if (Status may = may_listen(at, at.to_string()); !tls && !may.ok()) return may;
  listeners_.push_back(std::move(listener).value());
  return Status();
}

std::vector<transport::SocketAddress> Server::addresses() const {
  std::vector<transport::SocketAddress> addresses;
  for (const auto& listener : listeners_) addresses.push_back(listener->address());
  for (const auto& listener : quic_listeners_) addresses.push_back(listener->address());
  return addresses;
}

void Server::adopt(std::unique_ptr<transport::Connection> connection) {
  const std::string host = transport::host_of(connection->peer());
  const std::string_view why_not = admission_.enter(host);
  if (!why_not.empty() && turned_away_ >= kMostTurnedAway)
    return audits_.protocol.refused(host, connection->peer(), std::string(why_not));
  Session::Owner& owner = *this;  // a private base, which make_unique does not see
  Guest& guest = guests_.emplace_back();
  guest.session = std::make_unique<Session>(reactor_, std::move(connection), exports_,
                                            options_.session, buffers_, audits_, owner);
  guest.admitted = why_not.empty();
  Session& session = *guest.session;
  if (!why_not.empty()) {
    ++turned_away_;
    session.refuse(wire::error::kBusy, why_not);
  }
  if (stopping_) session.drain();
}

void Server::on_accept(std::unique_ptr<transport::Connection> connection) {
  adopt(std::move(connection));
}

Server::Guest& Server::guest(const Session& session) {
  return *std::find_if(guests_.begin(), guests_.end(),
                       [&session](const Guest& one) { return one.session.get() == &session; });
}

void Server::on_session_opened(Session& session) {
  guest(session).opened = true;
  admission_.opened(session.host());
}

void Server::on_session_over(Session& session) {
  over_.push_back(&session);
  bury_.schedule();
}

void Server::bury() {
  for (Session* const session : std::exchange(over_, {})) {
    Guest& gone = guest(*session);
    if (gone.admitted)
      admission_.leave(session->host(), gone.opened);
    else
      --turned_away_;
    guests_.erase(guests_.begin() + (&gone - guests_.data()));
  }
  if (!stopping_) return exports_.sweep();
  if (guests_.empty() && flushes_ == 0) flush_all();
}

Status Server::reload(const ServerOptions& options) {
  if (stopping_) return Status();
  if (Status replaced = exports_.replace(options.exports); !replaced.ok()) return replaced;
  options_.exports = options.exports;
  options_.limits = options.limits;
  options_.session = options.session;
  options_.memory = options.memory;
  admission_.set_limits(options.limits);
  buffers_.set_limit(options.memory);
  if (tls_acceptor_) tls_acceptor_->set_limits(handshakes());
  for (const auto& listener : quic_listeners_) listener->set_limits(quic_limits());
  for (const Guest& one : guests_) one.session->check_rights();
  return Status();
}

void Server::stop(std::chrono::milliseconds patience, Stopped stopped) {
  stopping_ = true;
  stopped_ = std::move(stopped);
  listeners_.clear();
  quic_listeners_.clear();
  patience_given_ = patience;
  tls_acceptor_.reset();
  patience_.arm(patience);
  for (const Guest& one : guests_) one.session->drain();
  bury_.schedule();
}

void Server::out_of_patience() {
  if (cut_off_ || flushes_ > 0)
    return report(Status(Code::kTimeout, "a store did not finish and flush in time",
                         "what was not flushed may get to the disk yet, or not"));
  kLog.warning("{} sessions did not end in time: cut off", guests_.size());
  cut_off_ = true;
  for (const Guest& one : guests_) one.session->close();
  patience_.arm(patience_given_);
}

void Server::report(const Status& status) {
  patience_.disarm();
  if (stopped_) std::exchange(stopped_, nullptr)(status);
}

void Server::flush_all() {
  patience_.arm(patience_given_);
  flushes_ = 1;  // so that none of those that complete at once is taken for the last
  for (const auto& served : exports_.stores()) {
    if (served->store().geometry().read_only) continue;
    ++flushes_;
    served->store().flush({[](void* self, const store::Outcome& outcome) {
                             static_cast<Server*>(self)->flushed(outcome.err);
                           },
                           this});
  }
  flushed(0);
}

void Server::flushed(int err) {
  if (err != 0) flush_status_ = Status::from_errno(err, "cannot flush a store");
  if (--flushes_ == 0) report(flush_status_);
}

}  // namespace rmem::server
