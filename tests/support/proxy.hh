// SPDX-License-Identifier: MIT
// Stands between client and server on unix sockets and does what networks do.
#pragma once

#include <algorithm>
#include <cerrno>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "support/loop.hh"
#include "transport/connector.hh"
#include "transport/socket.hh"

namespace rmem::test {

class Proxy final : private transport::Listener::Handler {
 public:
  // Listens at `front`, forwards to whoever listens at `back`.
  Proxy(Loop& loop, const std::string& front, std::string back)
      : loop_(loop), back_(std::move(back)) {
    auto made = transport::SocketListener::listen(loop.reactor(), at(front), *this);
    EXPECT_TRUE(made.ok()) << made.status().cause();
    listeners_ = std::move(made).value();
  }

  // Sees, and may change, every piece of the stream.
  std::function<void(std::vector<std::byte>&)> to_server, to_client;
  // Swallows everything, both ways, as a network that drops packets.
  bool black_hole = false;
  int connections = 0;
  // The same for one connection; they count from 1.
  int stuck = 0;

  // Ends every connection.
  void cut() { links_.clear(); }
  // Ends one.
  void cut(int number) {
    links_.remove_if([number](const auto& one) { return one->number == number; });
  }

 private:
  struct Link;
  struct End final : transport::Connection::Handler {
    Link* link = nullptr;
    End* other = nullptr;
    std::unique_ptr<transport::Connection> connection;
    std::vector<std::byte> out;

    void use(std::unique_ptr<transport::Connection> made) {
      connection = std::move(made);
      connection->attach(*this);
      flush();
    }
    void flush() {
      if (!connection) return;
      while (!out.empty()) {
        const iovec buffer = {out.data(), out.size()};
        const auto sent = connection->send({&buffer, 1});
        if (sent.bytes == 0) break;
        out.erase(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(sent.bytes));
      }
      connection->watch(true, !out.empty());
    }
    void on_readable() override {
      std::vector<std::byte> piece(64 << 10);
      const iovec space = {piece.data(), piece.size()};
      const auto got = connection->receive({&space, 1});
      if (got.err == EAGAIN) return;
      if (got.bytes == 0) return link->proxy.drop(*link);
      piece.resize(got.bytes);
      if (link->proxy.black_hole || link->proxy.stuck == link->number) return;
      auto& filter = this == &link->client ? link->proxy.to_server : link->proxy.to_client;
      if (filter) filter(piece);
      other->out.insert(other->out.end(), piece.begin(), piece.end());
      other->flush();
    }
    void on_writable() override { flush(); }
    void on_hangup() override { link->proxy.drop(*link); }
  };
  struct Link {
    explicit Link(Proxy& proxy) : proxy(proxy), number(proxy.connections) {
      client.link = server.link = this;
      client.other = &server;
      server.other = &client;
    }
    Proxy& proxy;
    const int number;
    End client, server;
    std::unique_ptr<transport::Connector> connector;
  };

  static transport::Address at(const std::string& path) {
    transport::Address address;
    address.path = path;
    return address;
  }
  void on_accept(std::unique_ptr<transport::Connection> connection) override {
    ++connections;
    links_.push_back(std::make_unique<Link>(*this));
    Link& link = *links_.back();
    link.client.use(std::move(connection));
    link.connector = std::make_unique<transport::Connector>(
        loop_.reactor(), true, [this, &link](Result<std::unique_ptr<transport::Connection>> made) {
          if (!made) return drop(link);
          link.server.use(std::move(made).value());
        });
    link.connector->start(at(back_));
  }
  void drop(Link& link) {
    links_.remove_if([&link](const auto& one) { return one.get() == &link; });
  }

  Loop& loop_;
  const std::string back_;
  std::vector<std::unique_ptr<transport::SocketListener>> listeners_;
  std::list<std::unique_ptr<Link>> links_;
};

}  // namespace rmem::test
