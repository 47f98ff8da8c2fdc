// SPDX-License-Identifier: MIT
// One connection of QUIC, with its streams, from the first packet to the last.
#pragma once

#include <gnutls/gnutls.h>
#include <ngtcp2/ngtcp2.h>
#include <ngtcp2/ngtcp2_crypto.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/reactor.hh"
#include "transport/byte_queue.hh"
#include "transport/tls_credentials.hh"
#include "transport/tls_peer.hh"
#include "transport/transport.hh"
#include "transport/udp_socket.hh"

namespace rmem::transport {

// As ngtcp2 counts time.
inline ngtcp2_tstamp quic_now() {
  return static_cast<ngtcp2_tstamp>(
      std::chrono::nanoseconds(Reactor::Clock::now().time_since_epoch()).count());
}

// The client opens one bidirectional stream, that of the bytes in order, and begins it with a
// zero byte, which lets the server know of it. Either side sends each message on a
// unidirectional stream of its own, so that a lost packet holds up those alone whose bytes were
// in it. Messages are sent first, in the order they came, so that never more than one of them is
// begun and not complete; that one fits the least window, so messages always get through.
//
//     hands ──▶ open ──▶ lingers (its owner has gone, what he has sent has not) ──▶ dead
//       └─────────┴────────────────────────────────────────────────────────────────▶
class QuicLink final : public std::enable_shared_from_this<QuicLink> {
 public:
  static constexpr std::size_t kIdLength = 16;  // of the connection IDs that we give out
  static constexpr std::size_t kLongestMessage = 32 << 10;
  using Id = ngtcp2_cid;

  // Where its packets come from and go to. Outlives every link that is not dead.
  class Port {
   public:
    virtual int send(const UdpSocket::Batch& batch) = 0;
    // The last send() has said EAGAIN: call on_writable() when there is room.
    virtual void wait_writable() = 0;
    // Packets for `id` are for `link`.
    virtual void add(const Id& id, QuicLink& link) = 0;
    virtual void remove(const Id& id) = 0;
    virtual void reset_token(const Id& id, std::uint8_t* token) = 0;
    // Once: hands have been shaken, or not.
    virtual void shaken(QuicLink& link, const Status& status) = 0;
    // A timer has run out, and nothing has been heard for a while.
    virtual void silent(QuicLink&) {}
    // Once: it is dead. Not to be destroyed from within.
    virtual void dead(QuicLink& link) = 0;
    // Where links make packets, one at a time.
    std::span<std::uint8_t> packets() { return packets_; }

   protected:
    ~Port() = default;

   private:
    std::array<std::uint8_t, 64 << 10> packets_;
  };

  struct Start {
    std::shared_ptr<const TlsCredentials> credentials;
    SocketAddress local, remote;
    std::string host;  // of a client
    // Of a server, from the client's first packet:
    Id client_id, first_id;  // as it calls itself, and had called us
    Id retried_id;           // and as we had it call us since then, if we had
    bool retried = false;
    std::uint32_t version = NGTCP2_PROTO_VER_V1;
    std::chrono::milliseconds handshake{0};             // at most; 0: somebody else limits that
    ngtcp2_encrypt encrypt = ngtcp2_crypto_encrypt_cb;  // tests have peers that say what they like
  };
  // Of the side of `credentials`.
  static Result<std::shared_ptr<QuicLink>> create(Reactor& reactor, Port& port, const Start& start);
  ~QuicLink();
  QuicLink(const QuicLink&) = delete;
  QuicLink& operator=(const QuicLink&) = delete;

  // From the port.
  void on_packets(const UdpSocket::Batch& batch);
  void on_writable();
  // From now on from another address of ours.
  Status move_to(const SocketAddress& local);
  // Sends what there is to be sent, soon.
  void kick() { turn_.schedule(); }

  // Ends it: nothing more is received; what send() has taken still goes out.
  void abandon();

  // What its Connection does.
  void attach(Connection::Handler& handler) { handler_ = &handler; }
  void watch(bool readable, bool writable, bool end);
  IoResult receive(std::span<const iovec> buffers);
  IoResult send(std::span<const iovec> buffers, bool more);
  int send_message(std::span<const iovec> message);
  bool receive_message(std::vector<std::byte>& message);
  std::chrono::microseconds round_trip() const;
  const SocketAddress& remote() const { return remote_; }
  const std::string& peer() const { return peer_; }
  const std::vector<std::string>& identities() const { return identities_; }
  const Status& failure() const { return failure_; }
  bool is_dead() const { return dead_; }

 private:
  friend struct QuicCallbacks;
  QuicLink(Reactor& reactor, Port& port, const Start& start);
  Status start(const Start& start);
  bool client() const { return credentials_->side() == TlsSide::kClient; }

  void on_timer();
  void on_turn();
  void report();
  bool readable() const;
  bool writable() const;
  void flush();
  bool flush_held();
  bool put(UdpSocket::Batch& batch);
  enum class Turn : std::uint8_t { kMessage, kStream, kNobody };
  struct Piece;
  using Waits = std::array<bool, 2>;  // by turn
  Piece next_piece(const Waits& waits) const;
  void taken(const Piece& piece, std::size_t bytes);
  void set_timer();
  void failed(int result);
  void say(const ngtcp2_ccerr& error);
  void close(std::uint64_t code);
  void die(const Status& status);
  void shaken();
  // From ngtcp2.
  bool received(std::int64_t id, std::span<const std::uint8_t> bytes, bool fin);
  bool message_received(std::int64_t id, std::span<const std::uint8_t> bytes, bool fin);
  void let_more_come(std::size_t stream_bytes, std::size_t message_bytes, std::size_t messages);
  void acked(std::int64_t id, std::uint64_t end);
  void stream_closed(std::int64_t id);

  Port& port_;
  const std::shared_ptr<const TlsCredentials> credentials_;
  const SocketAddress remote_;
  const std::string peer_, host_;
  gnutls_session_t session_ = nullptr;
  TlsDemands demands_;
  ngtcp2_conn* conn_ = nullptr;
  ngtcp2_crypto_conn_ref ref_{};
  std::vector<Id> ids_;  // that the port knows

  Connection::Handler* handler_ = nullptr;
  bool reading_ = false, writing_ = false, ending_ = false;  // what is watched
  bool shaking_ = true;
  bool spoken_ = false;  // bytes of a stream are in a packet
  bool abandoned_ = false;
  bool dead_ = false;
  bool forgotten_ = false;  // the peer knows nothing of it any more: stateless reset
  Status failure_;
  std::vector<std::string> identities_;

  std::int64_t stream_ = -1;
  ByteQueue out_;               // until it is acknowledged
  std::uint64_t out_sent_ = 0;  // up to there
  bool fin_sent_ = false, fin_acked_ = false;
  ByteQueue in_;
  bool in_begun_ = false;  // the kind of the stream has been read
  bool ended_ = false;     // the peer sends no more

  struct Outgoing {
    std::vector<std::uint8_t> bytes;  // until they are acknowledged
    std::size_t sent = 0;
  };
  std::unordered_map<std::int64_t, Outgoing> outgoing_;  // by stream
  std::size_t outgoing_bytes_ = 0;
  std::deque<std::int64_t> unsent_;  // or not completely
  std::unordered_map<std::int64_t, std::vector<std::byte>> incoming_;
  std::deque<std::vector<std::byte>> whole_;
  std::size_t read_messages_ = 0;  // of which the peer does not know yet that it may send more

  std::vector<std::uint8_t> held_bytes_;  // what the socket had no room for
  UdpSocket::Batch held_;
  Reactor::Clock::time_point heard_ = Reactor::Clock::now();
  Reactor::Timer timer_;
  Reactor::Timer patience_;  // while it lingers
  Reactor::TurnEnd turn_;
};

// A link as others see it.
class QuicConnection final : public Connection {
 public:
  explicit QuicConnection(std::shared_ptr<QuicLink> link) : link_(std::move(link)) {}
  ~QuicConnection() override { link_->abandon(); }

  void attach(Handler& handler) override { link_->attach(handler); }
  void watch(bool readable, bool writable) override { link_->watch(readable, writable, false); }
  void watch_end(bool writable) override { link_->watch(false, writable, true); }
  IoResult receive(std::span<const iovec> buffers) override { return link_->receive(buffers); }
  IoResult send(std::span<const iovec> buffers, bool more) override {
    return link_->send(buffers, more);
  }
  bool unordered() const override { return true; }
  int send_message(std::span<const iovec> message) override { return link_->send_message(message); }
  bool receive_message(std::vector<std::byte>& message) override {
    return link_->receive_message(message);
  }
  std::chrono::microseconds round_trip() const override { return link_->round_trip(); }
  bool intact() const override { return true; }
  bool local() const override { return link_->remote().local(); }
  const char* kind() const override { return "quic"; }
  const std::string& peer() const override { return link_->peer(); }
  const std::vector<std::string>& identities() const override { return link_->identities(); }
  Status failure() const override { return link_->failure(); }

 private:
  const std::shared_ptr<QuicLink> link_;
};

}  // namespace rmem::transport
