// SPDX-License-Identifier: MIT
// Connections and listeners over the kernel's stream sockets: TCP and unix.
#pragma once

#include <memory>
#include <string>

#include "base/reactor.hh"
#include "base/unique_fd.hh"
#include "transport/address.hh"
#include "transport/transport.hh"

namespace rmem::transport {

class SocketConnection final : public Connection, private Reactor::Handler {
 public:
  // `fd`: a connected stream socket, non-blocking.
  SocketConnection(Reactor& reactor, UniqueFd fd, const SocketAddress& peer);
  ~SocketConnection() override;

  void attach(Connection::Handler& handler) override;
  void watch(bool readable, bool writable) override;
  void watch_end(bool writable) override;
  IoResult receive(std::span<const iovec> buffers) override;
  IoResult send(std::span<const iovec> buffers, bool more) override;
  void carry_bulk() override;
  bool backs_off() const override { return distant_ && !paced_; }
  std::chrono::microseconds round_trip() const override;
  int socket() const override { return fd_.get(); }
  bool intact() const override { return local_; }
  bool local() const override { return local_; }
  const char* kind() const override { return unix_ ? "unix" : "tcp"; }
  const std::string& peer() const override { return peer_; }

 private:
  void on_events(std::uint32_t events) override;
  void watch_events(std::uint32_t events);
  void begin_burst();

  Reactor& reactor_;
  UniqueFd fd_;
  Connection::Handler* handler_ = nullptr;
  std::uint32_t watched_ = 0;
  bool local_;
  bool unix_;
  bool distant_ = false;  // and has been told so
  bool paced_ = false;    // by BBR
  Reactor::Clock::time_point sent_{};
  std::string peer_;
  bool* destroyed_ = nullptr;  // set while on_events() runs, to notice that
};

// How a socket is told to behave before it is used; best effort. For TCP:
// no delay; `prompt`: little unsent data in the kernel, so that what is urgent
// need not queue behind it there.
void tune_socket(int fd, int family, bool prompt);

class SocketListener final : public Listener, private Reactor::Handler {
 public:
  // Listens at every address that `address` resolves to (blocking). A stale
  // unix socket is replaced. kBusy: somebody listens there already.
  static Result<std::vector<std::unique_ptr<SocketListener>>> listen(Reactor& reactor,
                                                                     const Address& address,
                                                                     Listener::Handler& handler);
  // Takes over a listening stream socket that somebody else has made; its file,
  // if it has one, stays theirs. kUsage: it is something else.
  static Result<std::unique_ptr<SocketListener>> adopt(Reactor& reactor, UniqueFd fd,
                                                       Listener::Handler& handler);
  ~SocketListener() override;

  // With the port that the kernel chose for port 0.
  const SocketAddress& address() const { return address_; }

 private:
  SocketListener(Reactor& reactor, UniqueFd fd, const SocketAddress& address, std::string path,
                 Listener::Handler& handler);
  static Result<std::unique_ptr<SocketListener>> listen_at(Reactor& reactor,
                                                           const SocketAddress& address,
                                                           const std::string& path,
                                                           Listener::Handler& handler);
  static Result<std::unique_ptr<SocketListener>> start(Reactor& reactor, UniqueFd fd,
                                                       const std::string& path,
                                                       Listener::Handler& handler);
  void on_events(std::uint32_t events) override;

  Reactor& reactor_;
  UniqueFd fd_;
  SocketAddress address_;
  std::string path_;  // of a unix socket, to be unlinked
  Listener::Handler& handler_;
  Reactor::Timer pause_;  // after EMFILE and its like
};

}  // namespace rmem::transport
