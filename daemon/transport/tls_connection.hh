// SPDX-License-Identifier: MIT
// TLS 1.3 over a connection, by GnuTLS; after the handshake by the kernel, where that can.
#pragma once

#include <gnutls/gnutls.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/reactor.hh"
#include "transport/tls_credentials.hh"
#include "transport/tls_peer.hh"
#include "transport/transport.hh"

namespace rmem::transport {

// Carries nothing before shake_hands() has succeeded. There is no way from here to a
// connection in clear: what goes wrong ends it.
//
//             shake_hands()            keys into the kernel
//     new ──────────────────▶ hands ──┬──────────────────────▶ in the kernel
//                               │     └──────────────────────▶ in user space
//                               ▼                                   │
//                             dead ◀────────────────────────────────┘
class TlsConnection final : public Connection, private Connection::Handler {
 public:
  // kPermission: one does not believe the other; kUnreachable: it has gone; kFailed: it
  // does not speak TLS 1.3, or not that of rmem.
  using Done = std::function<void(const Status&)>;

  // `host`: of a client, the name or address that the server's certificate has to be for.
  static Result<std::unique_ptr<TlsConnection>> create(
      Reactor& reactor, std::shared_ptr<const TlsCredentials> credentials,
      std::unique_ptr<Connection> below, const std::string& host);
  ~TlsConnection() override;

  // Once, before everything else. `done` may destroy the connection; it may be called
  // before this returns. How long it may take is the caller's business.
  void shake_hands(Done done);

  void attach(Connection::Handler& handler) override;
  void watch(bool readable, bool writable) override;
  void watch_end(bool writable) override;
  IoResult receive(std::span<const iovec> buffers) override;
  IoResult send(std::span<const iovec> buffers, bool more) override;
  void carry_bulk() override { below_->carry_bulk(); }
  bool backs_off() const override { return below_->backs_off(); }
  std::chrono::microseconds round_trip() const override { return below_->round_trip(); }
  // Where the kernel has the keys, whoever receives from it gets plain bytes.
  int socket() const override { return in_kernel_ ? below_->socket() : -1; }
  bool bare() const override { return false; }
  bool intact() const override { return true; }
  bool local() const override { return below_->local(); }
  const char* kind() const override { return in_kernel_ ? "ktls" : "tls"; }
  const std::string& peer() const override { return below_->peer(); }
  const std::vector<std::string>& identities() const override { return identities_; }
  Status failure() const override { return failure_; }
  bool worn() const override;
  std::chrono::nanoseconds crypto_time() const override { return crypto_time_; }

 private:
  TlsConnection(Reactor& reactor, std::shared_ptr<const TlsCredentials> credentials,
                std::unique_ptr<Connection> below, const std::string& host);
  Status prepare();

  // From below.
  void on_readable() override;
  void on_writable() override;
  void on_hangup() override;

  // To GnuTLS.
  static ssize_t push(gnutls_transport_ptr_t self, const giovec_t* buffers, int count);
  static ssize_t pull(gnutls_transport_ptr_t self, void* into, size_t length);

  void advance();
  void shaken();
  void hands_off(const Status& status);
  Status refusal(int result) const {
    return tls_refusal(session_, credentials_->side(), result, below_->peer(), host_);
  }
  bool flush();
  IoResult receive_record(std::span<const iovec> buffers);
  IoResult failed(int result);
  void update_watch();
  void report();

  const std::shared_ptr<const TlsCredentials> credentials_;
  const std::unique_ptr<Connection> below_;
  const std::string host_;
  gnutls_session_t session_ = nullptr;
  TlsDemands demands_;
  Done done_;  // while hands are being shaken
  bool in_kernel_ = false;
  bool look_once_ = false;  // there, at what had come before the keys
  Connection::Handler* handler_ = nullptr;
  bool reading_ = false, writing_ = false, ending_ = false;  // what is watched
  std::vector<std::uint8_t> out_;                            // records to be sent
  std::size_t out_sent_ = 0;
  // In user space, after the handshake: records as they came, from in_at_ on.
  std::vector<std::uint8_t> in_;
  std::size_t in_at_ = 0, in_end_ = 0;
  bool ended_ = false;         // below has said so
  bool starved_ = false;       // the last pull() found nothing
  std::uint64_t records_ = 0;  // sent or received in user space
  std::vector<std::string> identities_;
  Status failure_;
  std::chrono::nanoseconds crypto_time_{};
  Reactor::TurnEnd turn_;
};

}  // namespace rmem::transport
