// SPDX-License-Identifier: MIT
#include "control/server.hh"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "base/json.hh"
#include "base/log.hh"

namespace rmem::control {
namespace {

std::string line_of(const nlohmann::json& reply) {
  return reply.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace

// One connection. Kept alive by the server, and by the reply that it waits for.
class Server::Client final : public Reactor::Handler, public std::enable_shared_from_this<Client> {
 public:
  Client(Server& server, UniqueFd fd, Peer peer)
      : server_(&server), fd_(std::move(fd)), peer_(std::move(peer)) {}
  ~Client() { leave(); }

  Status start() {
    events_ = EPOLLIN;
    Status s = server_->reactor_.add(fd_.get(), events_, *this);
    registered_ = s.ok();
    return s;
  }

  // The server goes, or wants no more requests of it.
  void leave() {
    if (registered_) server_->reactor_.remove(fd_.get());
    registered_ = false;
    fd_.reset();
  }
  bool has_reply_to_send() const { return !out_.empty(); }
  void stop_reading() {
    ended_ = true;
    go_on();
  }

  void send_and_end(nlohmann::json reply) {
    ended_ = true;
    answer(std::move(reply));
  }

 private:
  void on_events(std::uint32_t events) override {
    const auto self = shared_from_this();
    if (events & (EPOLLERR | EPOLLHUP)) return server_->remove(*this);
    if (events & EPOLLOUT) send();
    if (fd_ && (events & EPOLLIN)) receive();
    if (fd_) go_on();
  }

  void receive() {
    char buffer[4096];
    for (;;) {
      const ssize_t n = ::recv(fd_.get(), buffer, sizeof(buffer), MSG_DONTWAIT);
      if (n > 0) {
        in_.append(buffer, static_cast<std::size_t>(n));
        if (in_.size() > kMaxLine) break;
        continue;
      }
      if (n < 0 && (errno == EAGAIN || errno == EINTR)) break;
      ended_ = true;  // half a line at the end is no request
      break;
    }
    next_request();
  }

  // Takes lines off the input while no reply is owed. Replies that come at once
  // must not nest.
  void next_request() {
    if (std::exchange(taking_, true)) return;
    take_requests();
    taking_ = false;
  }

  void take_requests() {
    while (fd_ && !waiting_ && !refused_) {
      const std::size_t end = in_.find('\n');
      if (end == std::string::npos) {
        if (in_.size() > kMaxLine) refuse("the line is longer than 64KiB");
        return;
      }
      const std::string line = in_.substr(0, end);
      in_.erase(0, end + 1);
      if (!line.empty()) request(line);
    }
  }

  void request(const std::string& line) {
    const auto parsed = parse_json(line);
    if (!parsed.is_object()) return refuse("not a JSON object, or one nested too deeply");
    waiting_ = true;
    id_ = parsed.contains("id") ? parsed["id"] : nlohmann::json();
    server_->handle_(peer_, parsed, [self = shared_from_this()](nlohmann::json reply) {
      if (!std::exchange(self->waiting_, false)) return;
      self->answer(std::move(reply));
      if (self->taking_) return;  // more lines may be there, though no more will come
      self->next_request();
      self->go_on();
    });
  }

  void refuse(const char* why) {
    refused_ = ended_ = true;
    in_.clear();
    id_ = nlohmann::json();
    answer(error(
        Status(Code::kUsage, std::string("control request: ") + why, "one JSON object a line")));
  }

  void answer(nlohmann::json reply) {
    if (!fd_) return;
    reply["schema"] = 1;
    if (!id_.is_null()) reply["id"] = std::exchange(id_, nlohmann::json());
    out_ += line_of(reply);
    send();
  }

  void send() {
    while (fd_ && !out_.empty()) {
      const ssize_t n = ::send(fd_.get(), out_.data(), out_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n >= 0) {
        out_.erase(0, static_cast<std::size_t>(n));
      } else if (errno != EINTR) {
        if (errno != EAGAIN) return server_->remove(*this);
        break;
      }
    }
  }

  // What to wait for next; nothing left to do means good-bye.
  void go_on() {
    if (!fd_) return;
    if (ended_ && !waiting_ && out_.empty()) return server_->remove(*this);
    const bool read = !ended_ && !waiting_ && out_.empty();
    const std::uint32_t wanted = (read ? EPOLLIN : 0u) | (out_.empty() ? 0u : EPOLLOUT);
    if (wanted == events_) return;
    events_ = wanted;
    (void)server_->reactor_.modify(fd_.get(), wanted);
  }

  Server* server_;
  UniqueFd fd_;
  Peer peer_;
  bool registered_ = false;
  std::uint32_t events_ = 0;
  std::string in_;
  std::string out_;
  nlohmann::json id_;     // of the request that is being answered
  bool waiting_ = false;  // for the handler
  bool taking_ = false;   // inside of next_request()
  bool ended_ = false;    // no more requests
  bool refused_ = false;  // one was none
};

Server::Server(Reactor& reactor, ControlSocket socket, Handle handle)
    : reactor_(reactor),
      socket_(std::move(socket)),
      handle_(std::move(handle)),
      retry_(reactor, [this] {
        if (accepting_) (void)reactor_.modify(socket_.fd(), EPOLLIN);
      }) {}

Server::~Server() {
  stop();
  for (const auto& client : clients_) client->leave();
}

Status Server::start() {
  Status s = reactor_.add(socket_.fd(), EPOLLIN, *this);
  accepting_ = s.ok();
  return s;
}

void Server::stop() {
  if (std::exchange(accepting_, false)) reactor_.remove(socket_.fd());
  const auto clients = clients_;
  for (const auto& client : clients) client->stop_reading();
}

void Server::on_events(std::uint32_t) {
  for (;;) {
    UniqueFd fd(::accept4(socket_.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd) {
      if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
        // Most likely no descriptor is left; the socket would stay readable.
        log::Source("control").warning("no connection accepted: {}", std::strerror(errno));
        (void)reactor_.modify(socket_.fd(), 0);
        retry_.arm(std::chrono::milliseconds(100));
      }
      return;
    }
    auto peer = ControlSocket::peer_of(fd.get());
    if (!peer.ok()) continue;
    auto client = std::make_shared<Client>(*this, std::move(fd), std::move(*peer));
    if (!client->start().ok()) continue;
    clients_.push_back(client);
    if (clients_.size() > kMaxClients) {
      client->send_and_end(error(
          Status(Code::kBusy, "rmemd: too many control connections", "try again in a moment")));
      remove(*client);
    }
  }
}

void Server::remove(Client& client) {
  client.leave();
  const auto it = std::find_if(clients_.begin(), clients_.end(),
                               [&](const auto& c) { return c.get() == &client; });
  if (it != clients_.end()) clients_.erase(it);
}

nlohmann::json Server::error(const Status& status) {
  return {{"ok", false},
          {"error",
           {{"code", static_cast<int>(status.code())},
            {"name", code_name(status.code())},
            {"cause", status.cause()},
            {"hint", status.hint()}}}};
}

}  // namespace rmem::control
