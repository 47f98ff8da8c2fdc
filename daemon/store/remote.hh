// SPDX-License-Identifier: MIT
// A store on another machine: the client's side of docs/protocol.md.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/reactor.hh"
#include "base/result.hh"
#include "base/uuid.hh"
#include "store/connection_budget.hh"
#include "store/store.hh"
#include "transport/address.hh"
#include "transport/tls_credentials.hh"

namespace rmem::store {

// Where an export is served.
struct RemoteAddress {
  std::string host;  // name or numeric address; empty for a unix socket
  std::uint16_t port = 7070;
  std::string socket_path;  // of a unix socket; empty for TCP
  std::string export_name;
  // Over TLS, by these files instead of those of the options.
  transport::Address::Kind kind = transport::Address::Kind::kPlain;
  bool secure() const { return kind != transport::Address::Kind::kPlain; }
  transport::TlsOptions tls_files;
  std::string tls_hostname;  // in the server's certificate; empty: `host`

  // rmem://host:port/export, rmem://[::1]:7070/export, rmem+unix:///export?socket=/path, or
  // rmems://host:port/export and rmem+quic://host:port/export, which are encrypted or nothing,
  // with tls-certificates=DIR,
  // tls-psk-file=FILE, tls-username=IDENTITY, tls-hostname=NAME. kUsage for anything else.
  static Result<RemoteAddress> parse(std::string_view uri);

  // The canonical URI.
  std::string to_string() const;
};

// The right to write. The module mints one writer per region.
struct WriterClaim {
  Uuid writer{};
  // Take it from whoever has it. Counts once: reconnecting never takes over.
  bool take_over = false;
  // RemoteStore::claim_generation() of an earlier life of this writer; 0 = it
  // never had the claim. With it the server can tell ESTALE from EBUSY.
  std::uint64_t generation = 0;
};

// Whether payloads may be compressed; while that pays (wire::Compressor).
enum class Compression {
  kOff,
  kAuto,  // between hosts in clear, where lengths tell nothing that the bytes do not
  kLz4,   // on every connection
  kZstd,
};

struct RemoteOptions {
  bool read_only = false;
  // Plain TCP to another host.
  bool insecure = false;
  // For rmems:// where the address names no files.
  transport::TlsOptions tls;
  Compression compression = Compression::kOff;
  // That share what is carried in bulk; 0: one, or over a distance, where congestion control
  // makes one slow, as many as are worth it.
  unsigned bulk_connections = 0;
  // Among which reads that somebody waits for are shared; 0: one, or over a distance, once there
  // are many at a time, as many as are worth it.
  unsigned page_connections = 0;
  static constexpr unsigned kMostConnections = 16;  // of either
  // Those that nobody has needed for so long are closed.
  std::chrono::milliseconds burst_lanes_kept{600'000};
  // Checksums on payloads; unset = for TCP off loopback.
  std::optional<bool> checksum;
  // The size and identity that it has to have; unset = those of the first open.
  std::optional<Geometry> expected;

  // A peer that is silent for three of these is dead. Longer where the budget has many
  // connections.
  std::chrono::milliseconds keep_alive{2000};
  // Shared with the other stores of the reactor; null = one of its own.
  std::shared_ptr<ConnectionBudget> budget;
  // Resolving, connecting and opening together, once it is this store's turn.
  std::chrono::milliseconds open_timeout{5000};
  // Between two tries: doubles from the first to the last, with jitter.
  std::chrono::milliseconds backoff_first{50};
  std::chrono::milliseconds backoff_last{1000};
};

// Never blocks the reactor. Allocates while it opens, and on the data path only
// when more operations are outstanding than ever before, or more of them compressed.
//
//            open()/resume()        connection lost
//     idle ──────────────▶ connecting ──▶ up ◀──────▶ down
//                                │         │            │
//                                └─────────┴────────────┴──▶ failed
//
// Operations are accepted in every state. While it is not up they complete at
// once, possibly before the call returns: EAGAIN, or ESTALE once it has failed.
// When the connection is lost every outstanding operation completes with
// EAGAIN; whether a write among them was carried out is unknown, issuing it
// again is right. Reads overtake writes that have not been sent yet.
//
// Two connections where the server knows lanes: the bulk lane, on whose account
// the above is, and soon after it the page lane, for reads that somebody waits
// for. While there is no page lane, because the server has no room for it or it
// was lost, the bulk lane carries these as well, and it is tried for again; what
// was outstanding on it goes on there.
//
// Over a distance burst lanes, which are further page lanes, share these reads with it, once
// there are more than a connection that was idle lets go at once. They are closed when nobody
// has needed them for a while.
//
// Over a distance, where either end has no congestion control that tells lost packets
// from full queues (BBR), side lanes share the reads and writes of the bulk lane, once
// there are enough. When one of them is lost, so is the bulk lane.
class RemoteStore final : public Store {
 public:
  // Told about changes of state, on the reactor's thread. The store may be
  // destroyed from within none of these calls, nor from within a completion;
  // post that to the reactor.
  class Listener {
   public:
    // Connected again: same store, claim held. Operations work from now on.
    virtual void on_up() = 0;
    // `reason` says what was lost or, when called again in state down, why the
    // last try failed. It goes on trying.
    virtual void on_down(const Status& reason) = 0;
    // Final. kCorrupt: another identity or size; kBusy: another writer has the
    // claim; in both cases err() is ESTALE.
    virtual void on_failed(const Status& reason) = 0;

   protected:
    ~Listener() = default;
  };

  enum class State { kIdle, kConnecting, kUp, kDown, kFailed };

  struct Counters {
    std::uint64_t reconnects = 0;
    std::uint64_t page_lanes_lost = 0;  // while the bulk lane stayed
    std::uint64_t checksum_errors = 0;
    std::uint64_t bytes_read = 0;     // payload of successful reads; not what an asker takes
    std::uint64_t bytes_written = 0;  // payload of successful writes
    std::uint64_t bytes_saved = 0;    // of payloads, by compression
  };

  // Checks, but does nothing yet. kUsage: plain TCP off loopback without
  // `insecure` (a host name counts as off loopback unless it is `localhost`).
  // `listener` must outlive the store, the store must not outlive the reactor.
  static Result<std::unique_ptr<RemoteStore>> create(Reactor& reactor, RemoteAddress address,
                                                     const RemoteOptions& options,
                                                     Listener& listener);
  ~RemoteStore() override;

  // Connects and opens the export, one try, from idle. Then it is up and keeps
  // itself so. If it cannot, it is idle again and the status says why:
  // kUnreachable (nobody answers), kNotFound (no such host or export),
  // kPermission (read-write of a read-only export), kCorrupt (not `expected`),
  // kFailed (the peer speaks another protocol or version). The listener is not
  // told about this first try.
  using Opened = std::function<void(Result<Geometry>)>;
  void open(Opened done);

  // For a store that was open in an earlier life of this program: tries until
  // it is up, and tells the listener only. `options.expected` must be set;
  // geometry() is that until the store has answered. A read-only store passes
  // no claim.
  void resume(const std::optional<WriterClaim>& claim);

  // Becomes the store's writer; needed before the first write, zero or flush,
  // and repeated by itself after each reconnection. When up. kBusy: another
  // writer has it; EAGAIN in err() if the connection was lost meanwhile (call
  // again after on_up).
  using Finished = std::function<void(const Status&)>;
  void claim(const WriterClaim& claim, Finished done);
  // Of the claim that is held; 0 when there is none. Keep it for resume().
  std::uint64_t claim_generation() const;

  // Gives the claim back (if there is one) and closes; idle afterwards. Only
  // what was flushed before is safe. kUnreachable when the server cannot be
  // told; the claim then stays with it.
  void release(Finished done);

  // Closes at once; outstanding operations complete with EAGAIN. The claim
  // stays with the server.
  void close();

  State state() const;
  // Why it is down or failed; ok otherwise.
  const Status& reason() const;
  const Counters& counters() const;
  const RemoteAddress& address() const;
  // Whether payloads carry checksums; as agreed with the server, when up.
  bool checksummed() const;
  // In use: 0 unless up, else at least 1.
  unsigned lanes() const;
  // What carries the bulk lane, as transport::Connection::kind(); "" unless up.
  const char* transport() const;
  // What TLS in user space has cost on the connections that are up.
  std::chrono::nanoseconds crypto_time() const;

  // Store. flush() needs the claim, as writing does.
  const Geometry& geometry() const override;
  void read(std::uint64_t offset, std::span<std::byte> into, Done done,
            Urgency urgency = Urgency::kBulk) override;
  void receive(std::uint64_t offset, std::uint64_t length, Receiver& receiver, void* ctx, Done done,
               Urgency urgency = Urgency::kBulk) override;
  bool can_receive(std::uint64_t length) const override;
  bool overtakes() const override;
  std::chrono::microseconds round_trip() const override;
  // On the page lane, while there is one.
  void set_asker(Asker* asker, std::uint64_t longest = 0, bool receives = false) override;
  void take_answers(std::uint32_t lane) override;
  void write(std::uint64_t offset, std::span<const std::byte> from, Done done) override;
  void send(std::uint64_t offset, std::uint64_t length, Sender& sender, Done done) override;
  bool can_send(std::uint64_t length) const override;
  void zero(std::uint64_t offset, std::uint64_t length, Done done) override;
  void flush(Done done) override;
  void flush_behind(Done done) override;
  bool can_flush_behind() const override;

 private:
  struct Impl;
  explicit RemoteStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace rmem::store
