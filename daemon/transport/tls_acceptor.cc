// SPDX-License-Identifier: MIT
#include "transport/tls_acceptor.hh"

#include <algorithm>
#include <map>
#include <utility>

#include "transport/address.hh"

namespace rmem::transport {

struct TlsAcceptor::Pending {
  std::unique_ptr<TlsConnection> connection;
  std::string host;
  Reactor::Clock::time_point since = Reactor::Clock::now();
};

TlsAcceptor::TlsAcceptor(Reactor& reactor, TlsFiles& files, const Limits& limits,
                         Listener::Handler& handler)
    : reactor_(reactor),
      files_(files),
      limits_(limits),
      handler_(handler),
      bury_(reactor, [this] { gone_.clear(); }),
      next_timeout_(reactor, [this] {
        const auto begun = Reactor::Clock::now() - limits_.timeout;
        while (!pending_.empty() && pending_.front()->since <= begun) {
          refusals_.refused(pending_.front()->connection->peer() + ": no TLS handshake within " +
                            std::to_string(limits_.timeout.count()) + " ms");
          drop(pending_.begin());
        }
        if (!pending_.empty()) next_timeout_.arm(pending_.front()->since - begun);
      }) {}

TlsAcceptor::~TlsAcceptor() = default;

void TlsAcceptor::on_accept(std::unique_ptr<Connection> connection) {
  auto credentials = files_.current();
  if (!credentials) return refusals_.refused(credentials.status().cause());
  auto pending = std::make_unique<Pending>();
  pending->host = host_of(connection->peer());
  auto made =
      TlsConnection::create(reactor_, std::move(credentials).value(), std::move(connection), {});
  if (!made) return refusals_.refused(made.status().cause());
  pending->connection = std::move(made).value();
  if (pending_.size() >= limits_.pending) make_room();
  pending_.push_back(std::move(pending));
  if (!next_timeout_.armed()) next_timeout_.arm(limits_.timeout);
  const Place place = std::prev(pending_.end());
  (*place)->connection->shake_hands([this, place](const Status& status) { shaken(place, status); });
}

void TlsAcceptor::make_room() {
  std::map<std::string, std::size_t> count;
  const auto most = [&](const std::unique_ptr<Pending>& one) { return count[one->host]; };
  for (const auto& one : pending_) ++count[one->host];
  // The first of several: the oldest.
  const auto victim =
      std::max_element(pending_.begin(), pending_.end(),
                       [&](const auto& one, const auto& other) { return most(one) < most(other); });
  refusals_.refused((*victim)->connection->peer() +
                    ": makes room, as there are too many TLS handshakes");
  drop(victim);
}

void TlsAcceptor::shaken(Place place, const Status& status) {
  if (!status.ok()) {
    refusals_.refused(status.cause());
    return drop(place);
  }
  std::unique_ptr<Connection> connection = std::move((*place)->connection);
  drop(place);
  handler_.on_accept(std::move(connection));
}

// The connection may be on the stack.
void TlsAcceptor::drop(Place place) {
  gone_.splice(gone_.end(), pending_, place);
  bury_.schedule();
}

}  // namespace rmem::transport
