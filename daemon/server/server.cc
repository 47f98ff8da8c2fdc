// SPDX-License-Identifier: MIT
#include "server/server.hh"

#include <algorithm>
#include <cerrno>

#include "base/log.hh"

namespace rmem::server {
namespace {

const log::Source kLog("server");

}  // namespace

Result<std::unique_ptr<Server>> Server::create(Reactor& reactor, const ServerOptions& options) {
  auto workers = Workers::create(reactor, options.workers);
  if (!workers) return workers.status();
  auto exports = Exports::open(reactor, **workers, options.exports, options.state_dir);
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
      bury_(reactor, [this] { bury(); }),
      patience_(reactor, [this] {
        kLog.warning("{} sessions did not end in time: cut off", sessions_.size());
        for (const auto& session : sessions_) session->close();
      }) {}

Server::~Server() {
  listeners_.clear();
  // First the threads, which use the buffers of sessions and stores.
  workers_.reset();
  sessions_.clear();
}

Status Server::may_listen(const transport::SocketAddress& address, const std::string& name) const {
  if (options_.insecure || address.local()) return Status();
  return Status(Code::kUsage,
                name + ": plain TCP off loopback is neither encrypted nor authenticated",
                "listen at 127.0.0.1, [::1] or a unix socket; or give --insecure if you trust "
                "everybody who can reach the port");
}

Status Server::listen(const transport::Address& address) {
  if (!address.is_unix() && !options_.insecure) {
    auto resolved = transport::resolve(address.host, address.port, true, false);
    if (!resolved) return resolved.status();
    for (const transport::SocketAddress& one : *resolved)
      if (Status may = may_listen(one, address.to_string()); !may.ok()) return may;
  }
  auto listeners = transport::SocketListener::listen(reactor_, address, *this);
  if (!listeners) return listeners.status();
  for (auto& listener : *listeners) listeners_.push_back(std::move(listener));
  return Status();
}

Status Server::listen(UniqueFd passed) {
  auto listener = transport::SocketListener::adopt(reactor_, std::move(passed), *this);
  if (!listener) return listener.status();
  const transport::SocketAddress& at = (*listener)->address();
  if (Status may = may_listen(at, at.to_string()); !may.ok()) return may;
  listeners_.push_back(std::move(listener).value());
  return Status();
}

std::vector<transport::SocketAddress> Server::addresses() const {
  std::vector<transport::SocketAddress> addresses;
  for (const auto& listener : listeners_) addresses.push_back(listener->address());
  return addresses;
}

void Server::adopt(std::unique_ptr<transport::Connection> connection) {
  const bool full = sessions_.size() >= options_.max_sessions;
  Session::Owner& owner = *this;  // a private base, which make_unique does not see
  sessions_.push_back(std::make_unique<Session>(reactor_, std::move(connection), exports_,
                                                options_.session, owner));
  if (full) sessions_.back()->refuse(wire::error::kBusy, "too many connections");
  if (stopped_) sessions_.back()->drain();
}

void Server::on_accept(std::unique_ptr<transport::Connection> connection) {
  adopt(std::move(connection));
}

void Server::on_session_over(Session& session) {
  over_.push_back(&session);
  bury_.schedule();
}

void Server::bury() {
  for (Session* const session : std::exchange(over_, {}))
    std::erase_if(sessions_, [session](const auto& one) { return one.get() == session; });
  if (stopped_ && sessions_.empty() && flushes_ == 0) flush_all();
}

void Server::stop(std::chrono::milliseconds patience, Stopped stopped) {
  stopped_ = std::move(stopped);
  listeners_.clear();
  patience_.arm(patience);
  for (const auto& session : sessions_) session->drain();
  bury_.schedule();
}

void Server::flush_all() {
  patience_.disarm();
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
  if (--flushes_ == 0) std::exchange(stopped_, nullptr)(flush_status_);
}

}  // namespace rmem::server
