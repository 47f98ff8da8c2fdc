// SPDX-License-Identifier: MIT
// A whole server: exports, listeners, sessions.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/process.hh"
#include "base/reactor.hh"
#include "base/workers.hh"
#include "server/admission.hh"
#include "server/export.hh"
#include "server/session.hh"
#include "transport/address.hh"
#include "transport/quic.hh"
#include "transport/socket.hh"
#include "transport/tls_acceptor.hh"
#include "transport/tls_credentials.hh"

namespace rmem::server {

struct ServerOptions {
  std::vector<ExportSpec> exports;
  std::string state_dir = "/var/lib/rmem-server";
  // Allow plain TCP off loopback.
  bool insecure = false;
  // For tls:// addresses.
  transport::TlsOptions tls;
  unsigned workers = 4;
  Admission::Limits limits;
  SessionOptions session;
  // For requests and replies of all connections together. One that has none under way takes one
  // in any case.
  std::uint64_t memory = 1 << 30;
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
  // The same at a socket that listens already (socket activation); over TLS if its name
  // there is "tls", over QUIC if it is one of UDP.
  Status listen(PassedSocket passed);
  // Where it listens, with the ports that the kernel chose.
  std::vector<transport::SocketAddress> addresses() const;

  // Serves a connection that came about elsewhere.
  void adopt(std::unique_ptr<transport::Connection> connection);

  // Exports and limits as `options` have them from now on: what is new can be opened, what
  // is gone cannot, and stays with those who have it open; whoever has lost a right loses
  // the connection. Limits of a session are for those to come. On an error nothing has
  // changed. Blocks on the disk where something new is to be opened.
  Status reload(const ServerOptions& options);

  // Stops accepting, answers what has been received, flushes every store; then
  // calls `stopped` with what went wrong, from the loop. Sessions that are not
  // done within `patience` are cut off; stores have as long again to flush, then they are
  // not waited for (kTimeout).
  using Stopped = std::function<void(const Status&)>;
  void stop(std::chrono::milliseconds patience, Stopped stopped);

  std::size_t sessions() const { return guests_.size(); }
  // Bytes in use of ServerOptions::memory.
  std::uint64_t memory_in_use() const { return buffers_.in_use(); }
  const Exports& exports() const { return exports_; }

 private:
  Server(Reactor& reactor, const ServerOptions& options, std::unique_ptr<Workers> workers,
         Exports exports);
  transport::TlsAcceptor::Limits handshakes() const;
  transport::QuicLimits quic_limits() const;
  // Who takes the connections of a listener.
  Result<transport::Listener::Handler*> acceptor(transport::Address::Kind kind);
  Status listen_quic(Result<transport::UdpSocket> socket, transport::Listener::Handler& to);
  transport::QuicResetKey quic_reset_key();
  Status may_listen(const transport::SocketAddress& address, const std::string& name) const;
  void on_accept(std::unique_ptr<transport::Connection> connection) override;
  void on_session_opened(Session& session) override;
  void on_session_over(Session& session) override;
  struct Guest;
  Guest& guest(const Session& session);
  void bury();
  void out_of_patience();
  void report(const Status& status);
  void flush_all();
  void flushed(int err);

  Reactor& reactor_;
  ServerOptions options_;
  Exports exports_;
  std::unique_ptr<Workers> workers_;  // goes before the stores that have jobs there
  Audits audits_;
  Admission admission_;
  struct Guest {
    std::unique_ptr<Session> session;
    bool admitted = false;  // else it is told why not
    bool opened = false;
  };
  Buffers buffers_;
  std::vector<Guest> guests_;
  std::size_t turned_away_ = 0;  // of these
  std::vector<Session*> over_;   // of these, to be destroyed
  transport::TlsFiles tls_;
  std::unique_ptr<transport::TlsAcceptor> tls_acceptor_;  // with the first that needs it
  std::vector<std::unique_ptr<transport::SocketListener>> listeners_;
  std::vector<std::unique_ptr<transport::QuicListener>> quic_listeners_;
  Reactor::TurnEnd bury_;
  std::chrono::milliseconds patience_given_{};
  Reactor::Timer patience_;
  bool stopping_ = false;
  bool cut_off_ = false;
  Stopped stopped_;
  std::size_t flushes_ = 0;  // under way, while stopping
  Status flush_status_;
};

}  // namespace rmem::server
