// SPDX-License-Identifier: MIT
// A whole server: exports, listeners, sessions.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/reactor.hh"
#include "base/unique_fd.hh"
#include "base/workers.hh"
#include "server/export.hh"
#include "server/session.hh"
#include "transport/address.hh"
#include "transport/socket.hh"

namespace rmem::server {

struct ServerOptions {
  std::vector<ExportSpec> exports;
  std::string state_dir = "/var/lib/rmem-server";
  // Allow plain TCP off loopback.
  bool insecure = false;
  unsigned workers = 4;
  std::size_t max_sessions = 4096;
  SessionOptions session;
};

class Server final : private transport::Listener::Handler, private Session::Owner {
 public:
  // Opens the exports; serves nobody yet. Must not outlive the reactor.
  static Result<std::unique_ptr<Server>> create(Reactor& reactor, const ServerOptions& options);
  // Cuts off every session. Blocks until the workers have finished what they
  // have begun.
  ~Server();

  // kUsage: plain TCP off loopback, and not `insecure`.
  Status listen(const transport::Address& address);
  // The same at a socket that listens already (socket activation).
  Status listen(UniqueFd passed);
  // Where it listens, with the ports that the kernel chose.
  std::vector<transport::SocketAddress> addresses() const;

  // Serves a connection that came about elsewhere.
  void adopt(std::unique_ptr<transport::Connection> connection);

  // Stops accepting, answers what has been received, flushes every store; then
  // calls `stopped` with what went wrong, from the loop. Sessions that are not
  // done within `patience` are cut off.
  using Stopped = std::function<void(const Status&)>;
  void stop(std::chrono::milliseconds patience, Stopped stopped);

  std::size_t sessions() const { return sessions_.size(); }
  const Exports& exports() const { return exports_; }

 private:
  Server(Reactor& reactor, const ServerOptions& options, std::unique_ptr<Workers> workers,
         Exports exports);
  Status may_listen(const transport::SocketAddress& address, const std::string& name) const;
  void on_accept(std::unique_ptr<transport::Connection> connection) override;
  void on_session_over(Session& session) override;
  void bury();
  void flush_all();
  void flushed(int err);

  Reactor& reactor_;
  const ServerOptions options_;
  Exports exports_;
  std::unique_ptr<Workers> workers_;  // goes before the stores that have jobs there
  std::vector<std::unique_ptr<Session>> sessions_;
  std::vector<Session*> over_;  // of sessions_, to be destroyed
  std::vector<std::unique_ptr<transport::SocketListener>> listeners_;
  Reactor::TurnEnd bury_;
  Reactor::Timer patience_;
  Stopped stopped_;
  std::size_t flushes_ = 0;  // under way, while stopping
  Status flush_status_;
};

}  // namespace rmem::server
