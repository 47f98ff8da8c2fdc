// SPDX-License-Identifier: MIT
// JSON lines on a unix socket (docs/control-protocol.md).
#pragma once

#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "base/reactor.hh"
#include "base/result.hh"
#include "control/socket.hh"

namespace rmem::control {

// One request line, one reply line, in the order of the requests. A client that
// sends what is no request gets an error and is left; one that does not read
// its replies is not read from either.
class Server final : private Reactor::Handler {
 public:
  // A reply without "schema" and "id", which are added; either "ok": true and
  // the verb's members, or what error() makes. Call it once, at any time, on the
  // reactor's thread; the client may have left by then.
  using Reply = std::function<void(nlohmann::json)>;
  using Handle = std::function<void(const Peer& peer, const nlohmann::json& request, Reply reply)>;

  static nlohmann::json error(const Status& status);

  static constexpr std::size_t kMaxLine = 64 << 10;
  static constexpr std::size_t kMaxClients = 64;

  // Listens from start() on.
  Server(Reactor& reactor, ControlSocket socket, Handle handle);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  Status start();
  // No new client, no new request; replies under way are still sent.
  void stop();

 private:
  class Client;

  void on_events(std::uint32_t events) override;
  void remove(Client& client);

  Reactor& reactor_;
  ControlSocket socket_;
  Handle handle_;
  bool accepting_ = false;
  Reactor::Timer retry_;  // accepting, after there was no descriptor for it
  std::list<std::shared_ptr<Client>> clients_;
};

}  // namespace rmem::control
