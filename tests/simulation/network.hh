// SPDX-License-Identifier: MIT
// The network between daemon and server: holds bytes up, holds them back, cuts
// connections. It neither loses nor reorders bytes of a connection that lives, as
// TCP does not.
#pragma once

#include <algorithm>
#include <cerrno>
#include <deque>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "simulation/host.hh"
#include "transport/connector.hh"
#include "transport/socket.hh"

namespace rmem::sim {

class Network final : private transport::Listener::Handler {
 public:
  // Listens at `front` and leads to `back`, both unix sockets.
  Network(Reactor& reactor, const std::string& front, std::string back)
      : reactor_(reactor), back_(std::move(back)), bury_(reactor, [this] { bury(); }) {
    listeners_ = std::move(transport::SocketListener::listen(reactor, at(front), *this)).value();
  }

  Time latency_most{1ms};
  int connections = 0;

  // Nothing arrives any more until then; to_server, to_client: one way each.
  void hold(Time until, bool to_server, bool to_client) {
    if (to_server) held_[0] = until;
    if (to_client) held_[1] = until;
  }
  void cut_all() {
    for (const auto& link : links_) link->gone = true;
    bury_.schedule();
  }
  void cut_one() {
    if (links_.empty()) return;
    auto link = links_.begin();
    std::advance(link, Host::current()->chance.below(links_.size()));
    (*link)->gone = true;
    bury_.schedule();
  }

 private:
  struct Link;
  // What one side sends, on its way to the other.
  struct Way final : transport::Connection::Handler {
    Way(Link& link, int number, Reactor& reactor)
        : link(link), number(number), due(reactor, [this] { arrive(); }) {}
    void use(std::unique_ptr<transport::Connection> made) {
      from = std::move(made);
      from->attach(*this);
      from->watch(true, false);
      link.ways[1 - number].arrive();
    }
    void on_readable() override {
      const Host::Safe safe;
      std::vector<std::byte> piece(1 + Host::current()->chance.below(64 << 10));
      const iovec space = {piece.data(), piece.size()};
      const auto got = from->receive({&space, 1});
      if (got.err == EAGAIN) return;
      if (got.bytes == 0) return link.over();
      piece.resize(got.bytes);
      Host& host = *Host::current();
      last = std::max(last, host.now + host.chance.between(0ns, link.network.latency_most));
      pieces.push_back({last, std::move(piece)});
      if (pieces.size() == 1) arrive();
      // As much as a path holds.
      if (pieces.size() >= 64) from->watch(false, blocked());
    }
    void on_writable() override { link.ways[1 - number].arrive(); }
    void on_hangup() override { link.over(); }
    bool blocked() const { return link.ways[1 - number].stuck; }

    // Passes on what has been under way for long enough.
    void arrive() {
      const Host::Safe safe;
      transport::Connection* const to = link.ways[1 - number].from.get();
      if (to == nullptr || link.gone) return;
      const Time now = Host::current()->now;
      const Time held = link.network.held_[number];
      stuck = false;
      while (!pieces.empty()) {
        Piece& first = pieces.front();
        if (const Time when = std::max(first.due, held); when > now) {
          due.arm(when - now);
          break;
        }
        const iovec buffer = {first.bytes.data(), first.bytes.size()};
        const auto sent = to->send({&buffer, 1});
        if (sent.err != 0 && sent.err != EAGAIN) return link.over();
        first.bytes.erase(first.bytes.begin(),
                          first.bytes.begin() + static_cast<std::ptrdiff_t>(sent.bytes));
        if (!first.bytes.empty()) {
          stuck = true;
          break;
        }
        pieces.pop_front();
      }
      to->watch(link.ways[1 - number].pieces.size() < 64, stuck);
      if (from) from->watch(pieces.size() < 64, blocked());
    }

    struct Piece {
      Time due;
      std::vector<std::byte> bytes;
    };
    Link& link;
    const int number;  // 0: to the server
    std::unique_ptr<transport::Connection> from;
    std::deque<Piece> pieces;
    Time last{};
    bool stuck = false;  // the receiver takes no more
    Reactor::Timer due;
  };
  struct Link {
    Link(Network& network, Reactor& reactor)
        : network(network), ways{{*this, 0, reactor}, {*this, 1, reactor}} {}
    void over() {
      gone = true;
      network.bury_.schedule();
    }
    Network& network;
    bool gone = false;
    Way ways[2];
    std::unique_ptr<transport::Connector> connector;
  };

  static transport::Address at(const std::string& path) {
    transport::Address address;
    address.path = path;
    return address;
  }
  void on_accept(std::unique_ptr<transport::Connection> connection) override {
    const Host::Safe safe;
    ++connections;
    links_.push_back(std::make_unique<Link>(*this, reactor_));
    Link& link = *links_.back();
    link.ways[0].use(std::move(connection));
    link.connector = std::make_unique<transport::Connector>(
        reactor_, true, [&link](Result<std::unique_ptr<transport::Connection>> made) {
          if (!made) return link.over();
          link.ways[1].use(std::move(made).value());
        });
    link.connector->start(at(back_));
  }
  void bury() {
    const Host::Safe safe;
    links_.remove_if([](const auto& link) { return link->gone; });
  }

  Reactor& reactor_;
  const std::string back_;
  Time held_[2] = {};
  std::vector<std::unique_ptr<transport::SocketListener>> listeners_;
  std::list<std::unique_ptr<Link>> links_;
  Reactor::TurnEnd bury_;
};

}  // namespace rmem::sim
