// SPDX-License-Identifier: MIT
// One connection to a server, from HELLO to its end: numbers the requests,
// sends them in the right order, finds the request to each reply.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/reactor.hh"
#include "base/status.hh"
#include "base/uuid.hh"
#include "store/connection_budget.hh"
#include "store/store.hh"
#include "transport/transport.hh"
#include "wire/compression.hh"
#include "wire/frame_reader.hh"

namespace rmem::store {

// The client's side of docs/protocol.md, sections 1 to 4. Knows requests, not
// what they are good for; never reconnects.
class RemoteLink final : private transport::Connection::Handler, private wire::FrameReader::Sink {
 public:
  // What came back. `text` is the peer's sentence about an error, made
  // printable; `payload` that of a reply other than READ, valid during the call.
  struct Reply {
    const wire::Header& header;
    int err;  // 0, or the errno that header.error stands for
    std::span<const std::byte> payload;
  };

  // A request under way; a slot of the link, from take() until its completion.
  struct Call {
    wire::Header header;             // type, flags, offset, length: the caller's part
    std::span<const std::byte> out;  // its payload; untouched until the completion
    Sender* sender = nullptr;        // or it sends that, header.length bytes.
    std::span<std::byte> in;         // where a READ's payload goes,
    Receiver* receiver = nullptr;    // unless this takes it. Reply.err is ECANCELED
    void* receiver_ctx = nullptr;    // when it would not have all of it.
    void (*done)(void* ctx, const Reply& reply) = nullptr;
    void* ctx = nullptr;

   private:
    friend class RemoteLink;
    enum class State : std::uint8_t { kFree, kTaken, kQueued, kSent } state = State::kFree;
    std::uint32_t index = 0;
    std::uint32_t uses = 0;             // makes the number of each use of a slot another one
    std::uint64_t received = 0;         // of its payload, by `receiver` or for it
    bool unwanted = false;              // by `receiver`: what is left is thrown away
    std::uint32_t length = 0;           // of the payload, before it was compressed,
    std::uint32_t tag = 0;              // for the compressor
    std::vector<std::byte> compressed;  // instead of `out`, or what came for `in`
    bool sealed = false;                // as it is sent:
    wire::HeaderBytes encoded;
    Call* next = nullptr;
  };

  class Owner {
   public:
    // The connection is gone; calls that had not completed never will. Not
    // called after close(). The link must not be destroyed from within.
    virtual void on_link_lost(const Status& reason) = 0;
    // Its keys are worn: another connection should take its place. Said now and then.
    virtual void on_link_worn() {}
    // The server has answered what the asker of this link had asked: `ctx` is his,
    // `bytes` are there unless he has received them himself.
    virtual void on_asked(const Reply& reply, std::span<const std::byte> bytes, void* ctx) = 0;

   protected:
    ~Owner() = default;
  };

  struct Options {
    bool checksum = false;                   // wanted; the server may insist
    std::uint64_t codecs = 0;                // features: to compress payloads with
    std::chrono::milliseconds keep_alive{};  // at least; the budget may make it longer
    ConnectionBudget* budget = nullptr;      // never null; outlives the link
    wire::Role role = wire::Role::kEverything;
    std::uint32_t max_calls = wire::kMaxRequests;  // of data; the server may say fewer
    Uuid session{};
    std::uint32_t generation = 1;
  };

  RemoteLink(Reactor& reactor, std::unique_ptr<transport::Connection> connection,
             const Options& options, Owner& owner);
  ~RemoteLink();

  // Sends HELLO; `done` once the server has answered. OPEN may follow at once, which saves a
  // round trip; the rest only after it.
  void start(std::function<void()> done = nullptr);

  // A free slot, or null. Bulk calls (what modifies) leave some to the others,
  // control calls always find one.
  enum class Kind { kControl, kRead, kBulk };
  Call* take(Kind kind);
  // Sends it, soon: at the end of this turn of the loop, reads in front of bulk
  // calls that have not been sent. `handle` as OPEN answered, or 0.
  void submit(Call& call, std::uint32_t handle, Kind kind);

  // Reads of `handle` that somebody else asks for on this connection, of at most
  // `longest` bytes; what the link itself has to send goes in between. For good: with
  // take_back() it ends, and later answers are thrown away. An asker that `receives` is
  // left the answers, too, while none but his are outstanding. He has `at_once` outstanding at
  // most; 0: any number.
  void lend(Asker& asker, std::uint32_t handle, std::uint64_t longest, bool receives,
            std::uint32_t at_once = 0);
  void take_back();
  // Whether he may ask now.
  bool lends() const { return lent_.begun != Asker::Begun::kNo; }
  // He takes no more of them on the lane of that number.
  void take_answers(std::uint32_t number);

  // Ends the connection without telling the owner.
  void close();

  // Whether a READ of so many bytes may have a receiver, and better had.
  bool can_receive(std::uint64_t length) const;
  // Whether a WRITE of so many bytes may have a sender, and better had.
  bool can_send(std::uint64_t length) const;
  // The most bytes that one READ or WRITE carries; a READ with a receiver is not
  // sliced.
  std::uint32_t slice() const { return std::min(max_payload_, wire::kSlice); }
  bool checksums() const { return checksums_; }
  // As it was when somebody last looked, which is with every keep-alive.
  std::chrono::microseconds round_trip() const { return round_trip_; }
  // Whether the server knows what the role is about.
  bool lanes() const { return lanes_; }
  // Whether the server knows side lanes; and whether either end fares better with them.
  bool knows_sides() const { return lanes_ && sides_; }
  bool backs_off() const { return server_backs_off_ || (connection_ && connection_->backs_off()); }
  // Whether a FLUSH may cover what was sent before it.
  bool flushes_behind() const { return flushes_behind_; }
  std::uint64_t checksum_errors() const { return checksum_errors_; }
  // Bytes of payloads that did not have to travel because they were compressed.
  std::uint64_t bytes_saved() const { return bytes_saved_; }
  const std::string& peer() const { return peer_; }
  // transport::Connection::kind(), and what its encryption has cost; while it lasts.
  const char* transport() const { return connection_ ? connection_->kind() : ""; }
  std::chrono::nanoseconds crypto_time() const {
    return connection_ ? connection_->crypto_time() : std::chrono::nanoseconds{};
  }

 private:
  struct Queue {
    Call* first = nullptr;
    Call* last = nullptr;
    void push(Call& call);
    void pop();
  };

  enum class Step { kDone, kWait };
  void on_readable() override;
  void receive();
  void receive_messages();
  void advance(wire::FrameReader::State state);
  Step receive_aside(std::size_t& bytes);
  void ended(int err);
  void on_writable() override;
  void on_hangup() override;
  wire::FrameReader::Next on_header(const wire::Header& header,
                                    std::span<std::byte>& place) override;
  wire::FrameReader::Next on_frame(const wire::Header& header, bool intact) override;

  Call* find(const wire::Header& header);
  void zeros_came(Call& call);
  wire::FrameReader::Next on_asked_header(const wire::Header& header, std::span<std::byte>& place);
  void asked_done(const Reply& reply, std::span<const std::byte> bytes);
  void pause_asker();
  void pause(Asker& asker);
  void go_on(std::span<const std::byte> header, const Asker::Started& started);
  bool answers_are_askers() const;
  void resume_asker();
  void watch();
  void choose_staging();
  wire::FrameReader::Next violated(std::string_view how);
  void greeted(const Reply& reply);
  void look_how_far();
  void refused(const wire::Header& header, const std::string& text);
  void send();
  void send_messages();
  bool send_aside();
  void cannot_send(int err);
  void sent_whole();
  void seal(Call& call);
  std::span<std::byte> compressed(Call& call, std::size_t bytes);
  bool decompress(Call& call, const wire::Header& header);
  void on_tick();
  void next_tick();
  void ping();
  void lose(const Status& reason);

  Reactor& reactor_;
  std::unique_ptr<transport::Connection> connection_;  // null once it has ended
  const Options options_;
  Owner& owner_;
  const std::string peer_;
  wire::FrameReader reader_;
  std::vector<std::byte> message_;  // the last one that came beside the stream

  std::function<void()> greeted_;
  std::vector<std::byte> hello_;
  std::uint8_t version_;
  bool established_ = false;  // HELLO has been answered
  bool heard_ = false;        // anything has ever been received
  bool checksums_ = false;
  bool lanes_ = false;
  std::chrono::microseconds round_trip_{};
  bool zeros_ = false;  // the server answers a READ of nothing but zeros without them
  bool flushes_behind_ = false;
  bool sides_ = false;
  bool server_backs_off_ = false;
  std::uint32_t max_payload_;
  std::uint32_t max_calls_;
  std::uint64_t checksum_errors_ = 0;
  std::uint64_t codecs_ = 0;                      // how the server compresses what we read,
  std::unique_ptr<wire::Compressor> compressor_;  // and we what we write; null: not
  std::uint64_t bytes_saved_ = 0;
  std::vector<std::vector<std::byte>> spare_;  // for Call::compressed, a few
  std::vector<std::byte> whole_;               // what a receiver gets

  std::vector<Call> calls_;
  std::vector<Call*> free_;
  std::uint32_t data_calls_ = 0;  // taken, not control
  std::uint32_t bulk_calls_ = 0;  // of these,
  std::uint64_t bulk_bytes_ = 0;  // and their payloads
  Call* receiving_ = nullptr;     // whose reply is being received; null for REFUSE
  std::array<std::byte, wire::kMaxPayloadBeforeOpen> control_;  // payload of other replies
  std::uint32_t receivers_ = 0;                                 // calls under way that have one

  // What is lent, and the one answer to it that is being received.
  struct Lent {
    bool ever = false;
    Asker* asker = nullptr;  // null: nobody any more
    wire::HeaderBytes message;
    std::uint32_t handle = 0;
    std::uint64_t longest = 0;
    std::uint32_t at_once = 0;
    bool aside = false;            // payloads go to the asker as a receiver
    std::vector<std::byte> bytes;  // else they go here
    Call call;
    Asker::Begun begun = Asker::Begun::kNo;  // what it may do now
    // What an answer looks like, if the asker may ever take one; and since when not.
    bool takes = false;
    wire::HeaderBytes answer, mask;
    bool recalled = false;       // it has said that it takes no more,
    bool look_first = false;     // and we have not received anything since
    std::uint32_t patience = 0;  // answers that we receive before it takes the next
    bool started = false;        // go_on(): of the payload, too
  } lent_;

  Queue urgent_;
  Queue bulk_;
  Call* sending_ = nullptr;  // partly sent, in no queue
  std::size_t sent_ = 0;     // bytes of it
  bool blocked_ = false;

  Reactor::TurnEnd turn_end_;
  ConnectionBudget::Member member_;
  Reactor::Timer tick_;
  std::chrono::milliseconds interval_{};  // of the tick that is due
  Reactor::Clock::time_point last_received_;
  Reactor::Clock::time_point next_tick_;
  bool pinging_ = false;
};

}  // namespace rmem::store
