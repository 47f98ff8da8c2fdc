// SPDX-License-Identifier: MIT
// A server's QUIC: one socket for all connections, which are told apart by their IDs.
#include <gnutls/crypto.h>
#include <sys/epoll.h>

#include <array>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>

#include "transport/quic.hh"
#include "transport/quic_link.hh"
#include "transport/refusal_log.hh"

namespace rmem::transport {
namespace {

using namespace std::chrono_literals;

constexpr auto kTokenLife = 30s;         // of one that shows where a client is
constexpr std::size_t kLeastReset = 43;  // shorter packets could make two servers reset each other

std::string key_of(const QuicLink::Id& id) {
  return {reinterpret_cast<const char*>(id.data), id.datalen};
}
QuicLink::Id id_of(const std::uint8_t* data, std::size_t length) {
  QuicLink::Id id;
  ngtcp2_cid_init(&id, data, length);
  return id;
}
// Lives as long as the listener or any of its links.
class ServerPort final : public QuicLink::Port, private Reactor::Handler {
 public:
  ServerPort(Reactor& reactor, UdpSocket socket, TlsFiles& files, const QuicLimits& limits,
             const QuicResetKey& key, Listener::Handler& handler)
      : reactor_(reactor),
        socket_(std::move(socket)),
        files_(&files),
        limits_(limits),
        handler_(&handler),
        reset_key_(key),
        bury_(reactor, [this] {
          gone_.clear();
          if (handler_ == nullptr && links_.empty()) reactor_.let_go(this);
        }) {
    gnutls_rnd(GNUTLS_RND_KEY, token_key_.data(), token_key_.size());
  }
  ~ServerPort() { reactor_.remove(socket_.fd()); }

  Status start() { return reactor_.add(socket_.fd(), EPOLLIN, *this); }
  const SocketAddress& address() const { return socket_.local(); }
  void set_limits(const QuicLimits& limits) { limits_ = limits; }
  // No new ones.
  void close() {
    handler_ = nullptr;
    files_ = nullptr;
    for (const auto& [link, host] : pending_) link->abandon();
    bury_.schedule();
  }

 private:
  int send(const UdpSocket::Batch& batch) override { return socket_.send(batch); }
  void wait_writable() override { (void)reactor_.modify(socket_.fd(), EPOLLIN | EPOLLOUT); }
  void add(const QuicLink::Id& id, QuicLink& link) override { by_id_[key_of(id)] = &link; }
  void remove(const QuicLink::Id& id) override { by_id_.erase(key_of(id)); }
  void reset_token(const QuicLink::Id& id, std::uint8_t* token) override {
    ngtcp2_crypto_generate_stateless_reset_token(token, reset_key_.data(), reset_key_.size(), &id);
  }
  void shaken(QuicLink& link, const Status& status) override {
    pending_.erase(&link);
    if (!status.ok()) return refusals_.refused(status.cause());
    if (handler_ == nullptr) return link.abandon();
    handler_->on_accept(std::make_unique<QuicConnection>(link.shared_from_this()));
  }
  void dead(QuicLink& link) override {
    pending_.erase(&link);
    const auto one = links_.find(&link);
    if (one == links_.end()) return;
    gone_.push_back(std::move(one->second));
    links_.erase(one);
    bury_.schedule();
  }

  void on_events(std::uint32_t events) override {
    if ((events & EPOLLOUT) != 0) {
      (void)reactor_.modify(socket_.fd(), EPOLLIN);
      for (const auto& [link, owned] : links_) link->on_writable();
    }
    UdpSocket::Batch batch;
    // So many that others get their turn.
    for (int i = 0; i < 64 && socket_.receive(batch) == 0; ++i) received(batch);
  }

  void received(const UdpSocket::Batch& batch) {
    ngtcp2_version_cid head;
    const auto first = batch.bytes.first(std::min(batch.segment, batch.bytes.size()));
    const int result =
        ngtcp2_pkt_decode_version_cid(&head, first.data(), first.size(), QuicLink::kIdLength);
    if (result == NGTCP2_ERR_VERSION_NEGOTIATION) return name_versions(batch, head);
    if (result != 0) return;
    const auto known =
        by_id_.find(std::string(reinterpret_cast<const char*>(head.dcid), head.dcidlen));
    if (known != by_id_.end()) return known->second->on_packets(batch);
    if (head.version == 0) return reset(batch, head);
    if (handler_ != nullptr) accept(batch, first);
  }

  void answer(const UdpSocket::Batch& to, std::span<const std::uint8_t> packet) {
    UdpSocket::Batch batch{to.to, to.from, 0, packet, packet.size()};
    (void)socket_.send(batch);
  }

  void name_versions(const UdpSocket::Batch& batch, const ngtcp2_version_cid& head) {
    if (batch.bytes.size() < NGTCP2_MAX_UDP_PAYLOAD_SIZE) return;
    std::array<std::uint8_t, 256> packet;
    const std::uint32_t versions[] = {NGTCP2_PROTO_VER_V1};
    std::uint8_t chance = 0;
    gnutls_rnd(GNUTLS_RND_NONCE, &chance, 1);
    const auto length = ngtcp2_pkt_write_version_negotiation(
        packet.data(), packet.size(), chance, head.scid, head.scidlen, head.dcid, head.dcidlen,
        versions, std::size(versions));
    if (length > 0) answer(batch, {packet.data(), static_cast<std::size_t>(length)});
  }

  // Of a connection that we know nothing of, as we have been started again since: its peer
  // shall not wait for it.
  void reset(const UdpSocket::Batch& batch, const ngtcp2_version_cid& head) {
    if (batch.bytes.size() < kLeastReset) return;
    const auto id = id_of(head.dcid, head.dcidlen);
    std::array<std::uint8_t, NGTCP2_STATELESS_RESET_TOKENLEN> token;
    reset_token(id, token.data());
    std::array<std::uint8_t, NGTCP2_MIN_STATELESS_RESET_RANDLEN> noise;
    gnutls_rnd(GNUTLS_RND_NONCE, noise.data(), noise.size());
    std::array<std::uint8_t, 128> packet;
    const auto length = ngtcp2_pkt_write_stateless_reset(packet.data(), packet.size(), token.data(),
                                                         noise.data(), noise.size());
    if (length > 0 && static_cast<std::size_t>(length) < batch.bytes.size())
      answer(batch, {packet.data(), static_cast<std::size_t>(length)});
  }

  void accept(const UdpSocket::Batch& batch, std::span<const std::uint8_t> first) {
    ngtcp2_pkt_hd head;
    if (ngtcp2_accept(&head, first.data(), first.size()) != 0) return;
    QuicLink::Start start;
    start.client_id = head.scid;
    start.first_id = head.dcid;
    start.version = head.version;
    start.local = batch.to;
    start.remote = batch.from;
    start.handshake = limits_.handshake;
    if (head.tokenlen > 0) {
      if (ngtcp2_crypto_verify_retry_token(&start.first_id, head.token, head.tokenlen,
                                           token_key_.data(), token_key_.size(), head.version,
                                           batch.from.get(), batch.from.length, &head.dcid,
                                           kTokenLife / 1ns, quic_now()) != 0)
        return;  // not ours, or too old: the client tries again
      start.retried = true;
      start.retried_id = head.dcid;
    } else if (pending_.size() >= limits_.pending / 4) {
      return retry(batch, head);
    }
    const std::string host = host_of(batch.from.to_string());
    std::size_t of_host = 0;
    for (const auto& [link, from] : pending_) of_host += from == host ? 1 : 0;
    if (pending_.size() >= limits_.pending || of_host >= limits_.pending_per_host)
      return refusals_.refused(batch.from.to_string() + ": too many QUIC handshakes");
    auto credentials = files_->current();
    if (!credentials) return refusals_.refused(credentials.status().cause());
    start.credentials = std::move(credentials).value();
    auto made = QuicLink::create(reactor_, *this, start);
    if (!made) return refusals_.refused(made.status().cause());
    const std::shared_ptr<QuicLink> link = std::move(made).value();
    links_.emplace(link.get(), link);
    pending_.emplace(link.get(), host);
    link->on_packets(batch);
  }

  void retry(const UdpSocket::Batch& batch, const ngtcp2_pkt_hd& head) {
    QuicLink::Id id;
    id.datalen = QuicLink::kIdLength;
    gnutls_rnd(GNUTLS_RND_NONCE, id.data, id.datalen);
    std::array<std::uint8_t, NGTCP2_CRYPTO_MAX_RETRY_TOKENLEN> token;
    const auto token_length = ngtcp2_crypto_generate_retry_token(
        token.data(), token_key_.data(), token_key_.size(), head.version, batch.from.get(),
        batch.from.length, &id, &head.dcid, quic_now());
    if (token_length < 0) return;
    std::array<std::uint8_t, 512> packet;
    const auto length =
        ngtcp2_crypto_write_retry(packet.data(), packet.size(), head.version, &head.scid, &id,
                                  &head.dcid, token.data(), static_cast<std::size_t>(token_length));
    if (length > 0) answer(batch, {packet.data(), static_cast<std::size_t>(length)});
  }

  Reactor& reactor_;
  UdpSocket socket_;
  TlsFiles* files_;  // null once the listener has gone,
  QuicLimits limits_;
  Listener::Handler* handler_;  // as this is
  const QuicResetKey reset_key_;
  std::array<std::uint8_t, 32> token_key_;  // of Retry
  std::map<QuicLink*, std::shared_ptr<QuicLink>> links_;
  std::map<QuicLink*, std::string> pending_;  // whose hands are being shaken, and from where
  std::unordered_map<std::string, QuicLink*> by_id_;
  std::vector<std::shared_ptr<QuicLink>> gone_;  // to be destroyed, not from within themselves
  Reactor::TurnEnd bury_;
  RefusalLog refusals_{"quic"};
};

class PortListener final : public QuicListener {
 public:
  explicit PortListener(std::shared_ptr<ServerPort> port) : port_(std::move(port)) {}
  ~PortListener() override { port_->close(); }
  const SocketAddress& address() const override { return port_->address(); }
  void set_limits(const QuicLimits& limits) override { port_->set_limits(limits); }

 private:
  const std::shared_ptr<ServerPort> port_;
};

}  // namespace

Result<std::unique_ptr<QuicListener>> quic_listen(Reactor& reactor, UdpSocket socket,
                                                  TlsFiles& files, const QuicLimits& limits,
                                                  const QuicResetKey& key,
                                                  Listener::Handler& handler) {
  auto port = std::make_shared<ServerPort>(reactor, std::move(socket), files, limits, key, handler);
  if (const Status s = port->start(); !s.ok()) return s;
  reactor.keep(port);
  return std::unique_ptr<QuicListener>(std::make_unique<PortListener>(std::move(port)));
}

}  // namespace rmem::transport
