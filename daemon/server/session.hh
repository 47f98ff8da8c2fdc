// SPDX-License-Identifier: MIT
// One connection of a client: the server's side of docs/protocol.md.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.hh"
#include "base/reactor.hh"
#include "server/audit.hh"
#include "server/buffers.hh"
#include "server/export.hh"
#include "transport/transport.hh"
#include "wire/codec.hh"
#include "wire/compression.hh"
#include "wire/frame_reader.hh"

namespace rmem::server {

struct SessionOptions {
  std::chrono::milliseconds handshake_timeout = wire::kHandshakeTimeout;
  std::chrono::milliseconds silence = wire::kSilence;
  // For the peer to read why it was refused, before the connection is closed.
  std::chrono::milliseconds linger{1000};
  // What a connection may have under way before the server stops reading it.
  std::uint32_t max_requests = wire::kMaxRequests;
  std::uint64_t max_bytes = 16 << 20;
  // Whether payloads may be compressed, where the client wants that.
  bool compress = true;
};

// Where sessions tell what they have refused.
struct Audits {
  Audit access{"access"};     // an export, to somebody
  Audit protocol{"session"};  // a connection
};

// Lives until its connection is gone *and* its operations have completed.
class Session final : private transport::Connection::Handler,
                      private wire::FrameReader::Sink,
                      private Throttle::Waiter,
                      private Buffers::Waiter {
 public:
  class Owner {
   public:
    // It has opened an export, the first time.
    virtual void on_session_opened(Session& session) = 0;
    // Nothing refers to the session any more; destroy it, but not from within
    // this call.
    virtual void on_session_over(Session& session) = 0;

   protected:
    ~Owner() = default;
  };

  // `exports`, `buffers` and `audits` must outlive the session. A session beyond the limits is
  // made to be refused at once.
  Session(Reactor& reactor, std::unique_ptr<transport::Connection> connection,
          const Exports& exports, const SessionOptions& options, Buffers& buffers, Audits& audits,
          Owner& owner);
  ~Session();

  // Says why and ends the connection.
  void refuse(std::uint32_t error, std::string_view why, std::uint64_t request = 0);
  // Exports have changed: refuses, if the peer may not any more what it does.
  void check_rights();
  // Takes nothing more; ends when everything under way has been answered.
  void drain();
  // Ends the connection now.
  void close();

  // For logs: "192.0.2.1:4711 (rmemd 0.1.0)".
  const std::string& peer() const { return peer_; }
  // What counts as one peer.
  const std::string& host() const { return host_; }

 private:
  struct Handle;
  struct Request;
  enum class Phase {
    kHello,    // nothing received yet
    kOpening,  // HELLO answered, no OPEN has succeeded
    kOpen,
    kLeaving,  // REFUSE or the last replies go out; input is thrown away
    kClosed,   // no connection
  };

  // transport
  void on_readable() override;
  void on_writable() override;
  void on_hangup() override;
  // frames
  wire::FrameReader::Next on_header(const wire::Header& header,
                                    std::span<std::byte>& place) override;
  wire::FrameReader::Next on_frame(const wire::Header& header, bool intact) override;
  // throttle
  void may_go() override;
  // buffers
  void there_is_room() override;

  void receive_messages();
  void judge(wire::FrameReader::State state);
  void dispatch(Request& request);
  void hello(Request& request);
  void open(Request& request);
  void claim(Request& request, Handle& handle);
  void claim_answered(Request& request, Handle& handle, const Uuid& writer, int err,
                      std::uint64_t generation);
  void release(Request& request, Handle& handle);
  void read(Request& request, Handle& handle);
  void copy(Request& request, const store::Done& done);
  store::Urgency urgency() const;
  void modify(Request& request, Handle& handle);
  void flush(Request& request, Handle& handle);
  void flush_now(Request& request, Handle& handle);
  // The store of the handle is at work on the request; what it has to call in the end.
  store::Done begin(Request& request, const Handle& handle);
  store::Done done_of(Request& request);
  void modification_over(std::uint64_t number);
  Handle* find_handle(std::uint32_t number) const;
  // Whether the request has to wait for the rate of its export.
  bool has_to_wait(const Request& request);
  void let_go_held();
  void refuse_open(Request& request, const std::string& name, std::uint32_t error,
                   const std::string& why);
  // Whether the handle may modify its store; answers the request if not.
  bool may_write(Request& request, const Handle& handle);

  Request& take_request(const wire::Header& header);
  // The request's buffer, at least so large; what was in it is lost if it grows.
  std::span<std::byte> room(Request& request, std::size_t bytes);
  void use(Request& request, Buffers::Buffer buffer);
  void recycle(Request& request);
  void reply(Request& request, const store::Outcome& outcome);
  void reply_error(Request& request, std::uint32_t error, std::string_view text);
  void enqueue(Request& request);
  void seal(Request& request);
  void gone(Request& request);
  bool decompress(Request& request);
  void finished_by_store(Request& request, const store::Outcome& outcome);
  void answer(Request& request, const store::Outcome& outcome);
  void send();
  bool send_messages(std::size_t& turn);
  void tune();
  void discard_input();
  void update_watch();
  bool overloaded();
  void maybe_over();
  void on_deadline();

  Reactor& reactor_;
  std::unique_ptr<transport::Connection> connection_;
  const Exports& exports_;
  const SessionOptions options_;
  Buffers& buffers_;
  Audits& audits_;
  Owner& owner_;
  std::string peer_;
  const std::string host_;
  log::Source log_;
  wire::FrameReader reader_;
  std::vector<std::byte> message_;  // the last one that came beside the stream
  Phase phase_ = Phase::kHello;
  bool draining_ = false;
  bool paused_ = false;    // the reader has been told to wait
  bool blocked_ = false;   // send() said EAGAIN
  bool claiming_ = false;  // inside claim()
  bool over_ = false;
  int last_error_ = 0;  // of the store, as logged

  // Agreed in HELLO.
  std::uint8_t version_ = wire::kHelloVersion;
  std::uint32_t generation_ = 0;
  std::uint32_t peer_max_payload_ = wire::kMaxPayloadBeforeOpen;
  bool checksums_ = false;
  bool zeros_ = false;        // a READ of nothing but zeros is answered without them
  std::uint64_t codecs_ = 0;  // features: how WRITEs may be compressed,
  std::unique_ptr<wire::Compressor> compressor_;  // and replies are; null: not
  wire::Role role_ = wire::Role::kEverything;
  std::size_t since_tuned_ = 0;  // bytes sent
  std::chrono::milliseconds silence_;

  std::vector<std::unique_ptr<Handle>> handles_;  // by number - 1; null once closed

  std::vector<std::unique_ptr<Request>> requests_;
  std::vector<Request*> free_;
  Request* receiving_ = nullptr;  // whose payload is being received
  // Received, and waits for the rate of an export, unless may_go_.
  Request* held_ = nullptr;
  std::shared_ptr<Export> throttled_by_;
  bool may_go_ = false;
  // Of WRITEs and ZEROs: how many there were, and are at their stores. Flushes that
  // wait for those in front of them.
  std::uint64_t modifications_ = 0;
  std::uint32_t modifying_ = 0;
  std::vector<Request*> flushes_behind_;
  std::uint32_t under_way_ = 0;      // received, reply not yet sent
  std::uint32_t in_store_ = 0;       // of these, not yet completed by the store
  std::size_t bytes_under_way_ = 0;  // their buffers
  struct Queue {
    Request* first = nullptr;
    Request* last = nullptr;
    void push(Request& request);
    Request& pop();
  };
  Queue out_;                 // replies to be sent,
  Queue out_messages_;        // and such whose order does not matter, where there are messages
  std::size_t out_sent_ = 0;  // bytes of the first of out_ that are gone

  Reactor::TurnEnd turn_end_;
  Reactor::Timer deadline_;
  Reactor::Clock::time_point last_progress_;
};

}  // namespace rmem::server
