// SPDX-License-Identifier: MIT
#include "store/remote_link.hh"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/crc32c.hh"
#include "wire/codec.hh"
#include "wire/errors.hh"

namespace rmem::store {

using wire::FrameReader;
using wire::Type;

namespace {

constexpr std::size_t kStaging = 16 << 10;
constexpr std::size_t kReceivePerTurn = 4 << 20;
constexpr std::size_t kGather = 64;              // buffers in one send
constexpr std::size_t kGatherBytes = 512 << 10;  // so that a new read overtakes the rest
// Payloads below that are copied, and sent together with others (docs/design.md).
constexpr std::uint64_t kSendMin = 16 << 10;
constexpr std::uint32_t kControlCalls = 8;
// Of bulk calls at once: what the server takes into memory without making reads wait.
constexpr std::uint64_t kBulkBytes = 8 << 20;
constexpr std::size_t kSpare = 8;  // buffers for what is compressed
// In the numbers of our own requests. Those without it are cookies of an asker.
constexpr std::uint64_t kOwn = std::uint64_t{1} << 63;
// Answers to receive before an asker takes them again: after reads of our own, which
// come in groups, and after it would not.
constexpr std::uint32_t kPatience = 8;
constexpr std::uint32_t kLongPatience = 256;

// A line-based server that we have reached by mistake answers at once.
constexpr char kName[] = "rmem " RMEM_VERSION "\r\n\r\n";

}  // namespace

void RemoteLink::Queue::push(Call& call) {
  call.next = nullptr;
  (last != nullptr ? last->next : first) = &call;
  last = &call;
}

void RemoteLink::Queue::pop() {
  if ((first = first->next) == nullptr) last = nullptr;
}

RemoteLink::RemoteLink(Reactor& reactor, std::unique_ptr<transport::Connection> connection,
                       const Options& options, Owner& owner)
    : reactor_(reactor),
      connection_(std::move(connection)),
      options_(options),
      owner_(owner),
      peer_(connection_->peer()),
      reader_(*this, kStaging),
      version_(wire::kHelloVersion),
      max_payload_(wire::kMaxPayloadBeforeOpen),
      max_calls_(1),
      calls_(options.max_calls + kControlCalls),
      turn_end_(reactor, [this] { send(); }),
      member_(*options.budget),
      tick_(reactor, [this] { on_tick(); }),
      last_received_(Reactor::Clock::now()) {
  free_.reserve(calls_.size());
  for (std::size_t i = calls_.size(); i-- > 0;) {
    calls_[i].index = static_cast<std::uint32_t>(i);
    free_.push_back(&calls_[i]);
  }
  connection_->attach(*this);
  connection_->watch(true, false);
}

RemoteLink::~RemoteLink() = default;

void RemoteLink::start(std::function<void()> done) {
  greeted_ = std::move(done);
  wire::Hello hello;
  hello.role = options_.role;
  // Who takes answers by himself (an asker) knows only one form of them.
  const bool zeros = wire::carries_bulk(options_.role);
  hello.features = wire::feature::kLanes | wire::feature::kSides | wire::feature::kFlushBehind |
                   (zeros ? wire::feature::kZeros : 0) |
                   (options_.checksum ? wire::feature::kChecksum : 0) | options_.codecs;
  hello.silence = options_.keep_alive;
  hello.session = options_.session;
  hello.name = kName;
  hello_ = wire::encode(hello);
  Call& call = *take(Kind::kControl);
  call.header.type = Type::kHello;
  call.out = hello_;
  call.ctx = this;
  call.done = [](void* ctx, const Reply& reply) { static_cast<RemoteLink*>(ctx)->greeted(reply); };
  submit(call, 0, Kind::kControl);
  next_tick();
}

void RemoteLink::greeted(const Reply& reply) {
  const auto hello = wire::decode_hello(reply.payload);
  if (reply.err != 0 || !hello || hello->version < wire::kVersionMin ||
      hello->version > wire::kVersionMax || hello->max_requests == 0) {
    (void)violated("a HELLO that makes no sense");
    return;
  }
  version_ = static_cast<std::uint8_t>(hello->version);
  reader_.set_version(version_);
  reader_.set_max_payload(wire::kMaxPayload);
  checksums_ = hello->features & wire::feature::kChecksum;
  lanes_ = hello->features & wire::feature::kLanes;
  zeros_ = hello->features & wire::feature::kZeros;
  flushes_behind_ = hello->features & wire::feature::kFlushBehind;
  sides_ = hello->features & wire::feature::kSides;
  server_backs_off_ = hello->features & wire::feature::kBacksOff;
  codecs_ = hello->features & options_.codecs;
  if (codecs_ != 0) compressor_ = std::make_unique<wire::Compressor>(codecs_);
  max_payload_ = hello->max_payload;
  max_calls_ = std::min(hello->max_requests, options_.max_calls);
  established_ = true;
  look_how_far();
  if (greeted_) std::exchange(greeted_, nullptr)();
}

void RemoteLink::look_how_far() {
  if (!established_) return;
  round_trip_ = connection_->round_trip();
  if (lanes_ && wire::carries_bulk(options_.role)) connection_->carry_bulk();
}

// --- calls -------------------------------------------------------------------

RemoteLink::Call* RemoteLink::take(Kind kind) {
  if (kind != Kind::kControl && data_calls_ >= max_calls_) return nullptr;
  if (kind == Kind::kBulk &&
      (bulk_calls_ >= std::max(1u, max_calls_ / 2) || bulk_bytes_ >= kBulkBytes))
    return nullptr;
  if (free_.empty()) return nullptr;
  Call& call = *free_.back();
  free_.pop_back();
  if (kind != Kind::kControl) ++data_calls_;
  if (kind == Kind::kBulk) ++bulk_calls_;
  call.state = Call::State::kTaken;
  call.header = {};
  call.out = {};
  call.sender = nullptr;
  call.in = {};
  call.receiver = nullptr;
  call.received = 0;
  call.unwanted = false;
  call.sealed = false;
  return &call;
}

void RemoteLink::submit(Call& call, std::uint32_t handle, Kind kind) {
  wire::Header& header = call.header;
  const bool hello = header.type == Type::kHello;
  header.version = hello ? wire::kHelloVersion : version_;
  header.request = kOwn | std::uint64_t{++call.uses} << 32 | call.index;
  header.handle = handle;
  header.generation = options_.generation;
  header.payload =
      static_cast<std::uint32_t>(call.sender != nullptr ? header.length : call.out.size());
  call.length = header.payload;
  if (call.receiver != nullptr) {
    ++receivers_;
    choose_staging();
  }
  if (kind != Kind::kControl) lent_.patience = std::max(lent_.patience, kPatience);
  if (kind == Kind::kBulk) bulk_bytes_ += call.length;
  call.state = Call::State::kQueued;
  (kind == Kind::kBulk ? bulk_ : urgent_).push(call);
  turn_end_.schedule();
}

// Its turn to be sent has come.
void RemoteLink::seal(Call& call) {
  if (std::exchange(call.sealed, true)) return;
  wire::Header& header = call.header;
  const bool writes = header.type == Type::kWrite;
  call.tag = 0;
  if (writes && compressor_) {
    const auto offer =
        call.sender != nullptr ? compressor_->offer_plain() : compressor_->offer(call.out);
    call.tag = offer.tag;
    if (offer.codec != wire::Codec::kNone) {
      bytes_saved_ += call.out.size() - offer.bytes.size();
      const auto bytes = compressed(call, offer.bytes.size());
      std::ranges::copy(offer.bytes, bytes.begin());
      call.out = bytes;
      header.flags |= wire::codec_flag(offer.codec);
      header.payload = static_cast<std::uint32_t>(call.out.size());
    }
  }
  if (writes && checksums_) {
    header.flags |= wire::flag::kChecksum;
    header.checksum = crc32c(call.out);
  }
  wire::encode(header, call.encoded);
}

void RemoteLink::send() {
  const bool to_send = sending_ != nullptr || urgent_.first != nullptr || bulk_.first != nullptr;
  const bool asks = lent_.begun == Asker::Begun::kAsks;
  if (to_send || lent_.recalled || (asks && answers_are_askers())) pause_asker();
  if (connection_ && connection_->unordered()) send_messages();
  while (connection_ && !blocked_ &&
         (sending_ != nullptr || urgent_.first != nullptr || bulk_.first != nullptr)) {
    if (sending_ != nullptr && sending_->sender != nullptr && sent_ >= sending_->encoded.size()) {
      if (!send_aside()) return;
      continue;
    }
    std::array<iovec, kGather> buffers;
    std::array<Call*, kGather> batch;
    std::size_t count = 0, calls = 0, bytes = 0;
    bool aside = false;  // what follows is sent by somebody else
    const auto gather = [&](Call& call, std::size_t skip) {
      seal(call);
      batch[calls++] = &call;
      if (skip < call.encoded.size()) {
        buffers[count++] = {call.encoded.data() + skip, call.encoded.size() - skip};
        skip = 0;
      } else {
        skip -= call.encoded.size();
      }
      if (skip < call.out.size())
        buffers[count++] = {const_cast<std::byte*>(call.out.data()) + skip, call.out.size() - skip};
      bytes += call.encoded.size() + call.out.size();
      aside = call.sender != nullptr;
    };
    if (sending_ != nullptr) gather(*sending_, sent_);
    for (Call* first : {urgent_.first, bulk_.first})
      for (Call* one = first;
           one != nullptr && !aside && count + 2 <= kGather && bytes < kGatherBytes;
           one = one->next)
        gather(*one, 0);

    const transport::IoResult result = connection_->send(std::span(buffers).first(count), aside);
    if (result.err == EAGAIN) {
      blocked_ = true;
      break;
    }
    if (result.err != 0) return cannot_send(result.err);

    // In the order in which they were gathered; the first that is not gone
    // completely is where the next send goes on.
    std::size_t left = result.bytes;
    for (std::size_t i = 0; i < calls && left > 0; ++i) {
      Call& call = *batch[i];
      const std::size_t whole = call.encoded.size() + call.header.payload;
      const std::size_t already = &call == sending_ ? sent_ : 0;
      if (&call != sending_) (&call == urgent_.first ? urgent_ : bulk_).pop();
      sending_ = &call;
      sent_ = already + std::min(left, whole - already);
      left -= sent_ - already;
      if (sent_ == whole) sent_whole();
    }
  }
  if (!connection_) return;
  if (compressor_) compressor_->pause(sending_ != nullptr || bulk_.first != nullptr);
  if (!blocked_) resume_asker();
  watch();
}

// Reads need not arrive in order, nor wait for what is being written.
void RemoteLink::send_messages() {
  while (!blocked_ && urgent_.first != nullptr && urgent_.first->header.type == Type::kRead) {
    Call& call = *urgent_.first;
    seal(call);
    const iovec message = {call.encoded.data(), call.encoded.size()};
    const int err = connection_->send_message({&message, 1});
    blocked_ = err == EAGAIN;
    if (err != 0) return;  // in order, then, or the connection will say why
    urgent_.pop();
    call.state = Call::State::kSent;
  }
}

void RemoteLink::watch() {
  if (!connection_) return;
  if (lent_.begun == Asker::Begun::kTakes)
    connection_->watch_end(blocked_);
  else
    connection_->watch(true, blocked_);
}

void RemoteLink::sent_whole() {
  sending_->state = Call::State::kSent;
  if (compressor_ && sending_->tag != 0) compressor_->sent(sending_->length, sending_->tag);
  sending_ = nullptr;
  sent_ = 0;
}

// More of a payload that has a sender. False: the connection is over.
bool RemoteLink::send_aside() {
  const wire::Header& header = sending_->header;
  const std::uint64_t done = sent_ - sending_->encoded.size();
  const Sender::Sent sent =
      sending_->sender->send(header.offset + done, header.length - done, connection_->socket());
  sent_ += sent.bytes;
  if (sent.err == 0) {
    sent_whole();
  } else if (sent.err == EAGAIN) {
    blocked_ = true;
  } else {
    cannot_send(sent.err);
  }
  return connection_ != nullptr;
}

// The connection may know better why it is dead than the errno says.
void RemoteLink::cannot_send(int err) {
  const Status why = connection_->failure();
  lose(why.ok() ? Status::from_errno(err, "connection to " + peer_) : why);
}

void RemoteLink::on_writable() {
  blocked_ = false;
  send();
}

// --- replies -----------------------------------------------------------------

bool RemoteLink::can_receive(std::uint64_t length) const {
  // Smaller ones come several at once through the staging buffer.
  return connection_ && connection_->socket() >= 0 && length >= kStaging && length <= max_payload_;
}

bool RemoteLink::can_send(std::uint64_t length) const {
  // Its checksum would have to be in front of it. Smaller ones go several at once.
  return connection_ && connection_->socket() >= 0 && !checksums_ && length >= kSendMin &&
         (!compressor_ || compressor_->plain());
}

void RemoteLink::on_readable() {
  lent_.look_first = false;
  receive();
  // Nothing but answers to the asker is to come: he may take them.
  if (connection_ && lent_.begun == Asker::Begun::kAsks && answers_are_askers())
    turn_end_.schedule();
}

// While the asker takes the answers.
void RemoteLink::on_hangup() {
  lent_.takes = false;
  pause_asker();
  watch();
  if (connection_) on_readable();
}

void RemoteLink::receive_messages() {
  std::size_t budget = kReceivePerTurn;
  while (connection_) {
    if (!connection_->receive_message(message_)) return;
    last_received_ = Reactor::Clock::now();
    Call* const begun = std::exchange(receiving_, nullptr);
    advance(reader_.message(message_));
    receiving_ = begun;
    if (message_.size() >= budget) return;
    budget -= message_.size();
  }
}

void RemoteLink::receive() {
  receive_messages();
  std::size_t budget = kReceivePerTurn;
  while (connection_) {
    std::size_t bytes = 0;
    if (reader_.aside() > 0) {
      if (receive_aside(bytes) == Step::kWait) return;
    } else {
      const auto space = reader_.receive_space();
      const std::size_t room = transport::total(space);
      const transport::IoResult got = connection_->receive(space);
      if (got.err == EAGAIN) return;
      if (got.bytes == 0) return ended(got.err);
      heard_ = true;
      last_received_ = Reactor::Clock::now();
      bytes = got.bytes;
      advance(reader_.received(bytes));
      // There was no more; asking would cost a call for each small reply.
      if (bytes < room) return;
    }
    if (bytes >= budget) return;
    budget -= bytes;
  }
}

// What the reader has come to.
void RemoteLink::advance(FrameReader::State state) {
  if (state != FrameReader::State::kBroken || !connection_) return;
  const bool other = !established_ && reader_.error() == wire::error::kProtocol;
  if (reader_.error() == wire::error::kBadMessage) ++checksum_errors_;
  lose(other
           ? Status(Code::kFailed, peer_ + " speaks another protocol",
                    "check the address and port: is that an rmem-server? For a listener of TLS use "
                    "rmems://",
                    EPROTO)
           : Status(Code::kFailed, peer_ + " sent " + reader_.problem(), {}, EPROTO));
}

// More of a payload that has a receiver. `bytes`: so many have been taken.
RemoteLink::Step RemoteLink::receive_aside(std::size_t& bytes) {
  Call& call = *receiving_;
  const wire::Header& header = reader_.header();
  Receiver::Taken taken;
  if (call.unwanted) {
    const iovec away = {control_.data(), std::min(control_.size(), reader_.aside())};
    const transport::IoResult got = connection_->receive({&away, 1});
    taken = {got.bytes, got.bytes == 0 && got.err != EAGAIN, got.err};
  } else {
    const bool checked = header.flags & wire::flag::kChecksum;
    taken = call.receiver->receive(call.receiver_ctx, call.received, reader_.aside(),
                                   connection_->socket(),
                                   checked ? std::optional(header.checksum) : std::nullopt);
  }
  bytes = taken.bytes;
  if (bytes > 0) {
    last_received_ = Reactor::Clock::now();
    call.received += bytes;
    reader_.took(bytes);
  }
  if (taken.lost) {
    ended(taken.err);
    return Step::kWait;
  }
  if (taken.err == EAGAIN) return Step::kWait;
  if (taken.err != 0 && taken.err != EBADMSG) call.unwanted = true;
  if (reader_.aside() == 0) advance(reader_.aside_done(taken.err != EBADMSG));
  return Step::kDone;
}

void RemoteLink::ended(int err) {
  if (err == ENOMSG) {  // no data, but word from TLS: the connection knows to read it
    const iovec away = {control_.data(), control_.size()};
    err = connection_->receive({&away, 1}).err;
  }
  if (const Status why = connection_->failure(); !why.ok()) return lose(why);
  if (!established_ && !heard_)
    return lose(Status(Code::kFailed,
                       peer_ + " closed the connection without an answer to HELLO; it may speak "
                               "another protocol",
                       "check the address and port: is that an rmem-server?", ECONNRESET));
  if (err != 0) return lose(Status::from_errno(err, "connection to " + peer_));
  lose(Status(Code::kUnreachable, peer_ + " closed the connection", {}, ECONNRESET));
}

RemoteLink::Call* RemoteLink::find(const wire::Header& header) {
  const std::uint64_t index = header.request & 0xffffffff;
  if (index >= calls_.size()) return nullptr;
  Call& call = calls_[index];
  // OPEN is answered with a handle that the request did not have.
  const bool same_handle = header.handle == call.header.handle || header.type == Type::kOpen;
  const bool match = call.state == Call::State::kSent && header.reply() &&
                     header.request == call.header.request && header.type == call.header.type &&
                     same_handle && header.generation == options_.generation;
  return match ? &call : nullptr;
}

FrameReader::Next RemoteLink::on_header(const wire::Header& header, std::span<std::byte>& place) {
  receiving_ = nullptr;
  if (header.type != Type::kRefuse) {
    if (lent_.ever && !(header.request & kOwn)) return on_asked_header(header, place);
    receiving_ = find(header);
    if (receiving_ == nullptr) return violated("a reply to nothing");
    if (header.type == Type::kRead && header.error == 0) {
      const wire::Header& asked = receiving_->header;
      const bool checked = header.flags & wire::flag::kChecksum;
      const bool zeros = header.flags & wire::flag::kZeros;
      const std::uint64_t by = wire::codec_feature(wire::codec_of(header.flags));
      if (header.offset != asked.offset || header.length != asked.length || (by & ~codecs_) ||
          (zeros ? !zeros_ || header.payload != 0
                 : (by == 0 && header.payload != asked.length) || checked != checksums_))
        return violated("a reply that does not fit its READ");
      if (zeros) {
        zeros_came(*receiving_);
        return FrameReader::Next::kGoOn;
      }
      if (by != 0) {
        place = compressed(*receiving_, header.payload);
        return FrameReader::Next::kGoOn;
      }
      if (receiving_->receiver != nullptr) return FrameReader::Next::kAside;
      place = receiving_->in;
      return FrameReader::Next::kGoOn;
    }
  }
  if (header.payload > control_.size()) return violated("an overlong reply");
  place = std::span(control_).first(header.payload);
  return FrameReader::Next::kGoOn;
}

// Where so many compressed bytes of the call may lie until it is over.
std::span<std::byte> RemoteLink::compressed(Call& call, std::size_t bytes) {
  if (!spare_.empty()) {
    call.compressed = std::move(spare_.back());
    spare_.pop_back();
  }
  call.compressed.resize(std::max(call.compressed.size(), bytes));
  return std::span(call.compressed).first(bytes);
}

// The bytes of a READ that the server has compressed. False: these are none.
bool RemoteLink::decompress(Call& call, const wire::Header& header) {
  std::span<std::byte> into = call.in;
  if (call.receiver != nullptr) {
    whole_.resize(std::max<std::size_t>(whole_.size(), header.length));
    into = std::span(whole_).first(header.length);
  }
  const auto from = std::span(call.compressed).first(header.payload);
  if (!wire::decompress(wire::codec_of(header.flags), from, into)) return false;
  bytes_saved_ += header.length - header.payload;
  if (call.receiver != nullptr) call.unwanted = !call.receiver->whole(call.receiver_ctx, into);
  return true;
}

void RemoteLink::zeros_came(Call& call) {
  if (call.receiver == nullptr)
    std::ranges::fill(call.in, std::byte{0});
  else
    call.unwanted = !call.receiver->zeros(call.receiver_ctx);
}

FrameReader::Next RemoteLink::on_frame(const wire::Header& header, bool intact) {
  const bool to_caller = receiving_ != nullptr && header.type == Type::kRead && header.error == 0;
  if (!intact || header.error == wire::error::kBadMessage) {
    ++checksum_errors_;
    lose(Status(Code::kUnreachable, "data between us and " + peer_ + " were damaged on the way", {},
                EBADMSG));
    return FrameReader::Next::kStop;
  }
  const auto payload = to_caller ? std::span<const std::byte>()
                                 : std::span<const std::byte>(control_).first(header.payload);
  if (header.type == Type::kRefuse) {
    refused(header, wire::clean_text(payload));
    return FrameReader::Next::kStop;
  }
  Call& call = *std::exchange(receiving_, nullptr);
  if (header.flags & wire::flag::kCompressed && !decompress(call, header))
    return violated("a payload that is not what its flags say");
  const int err = call.unwanted ? ECANCELED : wire::errno_from_wire(header.error);
  if (&call == &lent_.call) {
    asked_done({header, err, payload}, call.in);
    return connection_ ? FrameReader::Next::kGoOn : FrameReader::Next::kStop;
  }
  const bool control = header.type != Type::kRead && header.type != Type::kWrite &&
                       header.type != Type::kZero && header.type != Type::kFlush;
  if (!control) --data_calls_;
  if (!control && header.type != Type::kRead) {
    --bulk_calls_;
    bulk_bytes_ -= call.length;
  }
  if (!call.compressed.empty() && spare_.size() < kSpare)
    spare_.push_back(std::move(call.compressed));
  call.compressed = {};
  call.state = Call::State::kFree;
  free_.push_back(&call);
  if (call.receiver != nullptr) --receivers_;
  choose_staging();
  call.done(call.ctx, {header, err, payload});
  return connection_ ? FrameReader::Next::kGoOn : FrameReader::Next::kStop;
}

// --- what others ask ---------------------------------------------------------

void RemoteLink::lend(Asker& asker, std::uint32_t handle, std::uint64_t longest, bool receives,
                      std::uint32_t at_once) {
  if (lent_.ever) return;
  const bool aside = receives && can_receive(longest);
  if (!connection_ || !connection_->bare() || longest > max_payload_ ||
      (!aside && longest > kStaging))
    return;
  lent_.aside = aside;
  lent_.takes = receives;
  wire::Header header;
  header.version = version_;
  header.type = Type::kRead;
  header.handle = handle;
  header.generation = options_.generation;
  wire::encode(header, lent_.message);
  header.flags = wire::flag::kReply | (checksums_ ? wire::flag::kChecksum : 0);
  wire::encode(header, lent_.answer);
  lent_.mask.fill(std::byte{0xff});
  const auto varies = [this](std::size_t at, std::size_t bytes) {
    std::fill_n(lent_.mask.data() + at, bytes, std::byte{0});
  };
  varies(wire::header_at::kRequest, 8);
  varies(wire::header_at::kOffset, 8);
  varies(wire::header_at::kLength, 8);
  varies(wire::header_at::kPayload, 4);
  if (checksums_) varies(wire::header_at::kChecksum, 4);
  varies(wire::header_at::kEpoch, 8);
  varies(wire::header_at::kHeaderChecksum, 4);
  lent_.asker = &asker;
  lent_.ever = true;
  lent_.handle = handle;
  lent_.longest = longest;
  lent_.at_once = at_once;
  if (!lent_.aside) lent_.bytes.resize(longest);
  choose_staging();
  // When what is to be sent first has gone.
  turn_end_.schedule();
}

void RemoteLink::take_back() {
  if (lent_.asker == nullptr) return;
  // From here on answers are nobody's, also the one that he has begun with.
  Asker& asker = *std::exchange(lent_.asker, nullptr);
  lent_.call.unwanted = true;
  lent_.call.ctx = nullptr;
  pause(asker);
  asker.lost(options_.generation);
  watch();
}

void RemoteLink::take_answers(std::uint32_t number) {
  if (number != options_.generation || lent_.begun != Asker::Begun::kTakes) return;
  lent_.recalled = true;
  turn_end_.schedule();
}

// Half a frame of ours must not be followed by one of the asker's.
void RemoteLink::pause_asker() {
  if (lent_.asker != nullptr) pause(*lent_.asker);
}

void RemoteLink::pause(Asker& asker) {
  const auto begun = std::exchange(lent_.begun, Asker::Begun::kNo);
  if (begun == Asker::Begun::kNo) return;
  wire::HeaderBytes header;
  const Asker::Started started = asker.pause(header);
  if (begun != Asker::Begun::kTakes) return;
  lent_.look_first |= std::exchange(lent_.recalled, false);
  go_on(std::span(header).first(started.header), started);
}

// Goes on where the asker has stopped in the stream of answers.
void RemoteLink::go_on(std::span<const std::byte> header, const Asker::Started& started) {
  if (header.empty() || !connection_) return;
  // It was between two frames when he began.
  const auto space = reader_.receive_space();
  std::memcpy(space.front().iov_base, header.data(), header.size());
  lent_.started = started.payload > 0;
  advance(reader_.received(header.size()));
  lent_.started = false;
  if (started.payload == 0 || reader_.aside() == 0) return;
  const std::size_t taken = std::min<std::uint64_t>(started.payload, reader_.aside());
  receiving_->received = taken;
  reader_.took(taken);
  if (reader_.aside() == 0) advance(reader_.aside_done(!started.damaged));
}

// Is there nothing to receive but what the asker could take as well?
bool RemoteLink::answers_are_askers() const {
  return lent_.takes && !lent_.look_first && lent_.patience == 0 && free_.size() == calls_.size() &&
         reader_.between_frames();
}

void RemoteLink::resume_asker() {
  if (lent_.begun != Asker::Begun::kNo || lent_.asker == nullptr) return;
  namespace at = wire::header_at;
  Asker::Lane lane{options_.generation, connection_->socket(), lent_.message,       at::kRequest,
                   at::kOffset,         at::kLength,           at::kHeaderChecksum, {}};
  lane.round_trip = connection_->round_trip();
  lane.at_once = lent_.at_once;
  const bool takes = answers_are_askers();
  if (takes)
    lane.answer = {lent_.answer,
                   lent_.mask,
                   at::kRequest,
                   at::kOffset,
                   at::kLength,
                   at::kPayload,
                   checksums_ ? at::kChecksum : std::uint16_t{0},
                   at::kHeaderChecksum};
  lent_.begun = lent_.asker->begin(lane);
  if (takes && lent_.begun == Asker::Begun::kAsks) lent_.patience = kLongPatience;
  if (lent_.begun == Asker::Begun::kNo) take_back();
}

// Bytes behind a header may have a receiver, or nothing else can be the case.
void RemoteLink::choose_staging() { reader_.set_header_only(receivers_ > 0 || lent_.aside); }

FrameReader::Next RemoteLink::on_asked_header(const wire::Header& header,
                                              std::span<std::byte>& place) {
  Call& call = lent_.call;
  const bool checked = header.flags & wire::flag::kChecksum;
  if (!header.reply() || header.type != Type::kRead || header.handle != lent_.handle ||
      header.generation != options_.generation)
    return violated("a reply to nothing");
  if (header.error != 0 ? header.payload > control_.size()
                        : header.payload > lent_.longest || header.payload != header.length ||
                              header.length == 0 || checked != checksums_)
    return violated("a reply that does not fit its READ");
  const auto ctx = lent_.asker == nullptr
                       ? std::optional<void*>(nullptr)
                       : lent_.asker->awaited(header.request, header.offset,
                                              header.error == 0 ? header.length : 0);
  if (!ctx) return violated("a reply that does not fit its READ");
  receiving_ = &call;
  call.ctx = call.receiver_ctx = *ctx;
  call.receiver = lent_.asker;
  call.received = 0;
  call.unwanted = *ctx == nullptr;
  call.in = {};
  if (header.error != 0) {
    place = std::span(control_).first(header.payload);
  } else if (lent_.aside || lent_.started) {
    return FrameReader::Next::kAside;
  } else {
    place = call.in = std::span(lent_.bytes).first(header.payload);
  }
  return FrameReader::Next::kGoOn;
}

void RemoteLink::asked_done(const Reply& reply, std::span<const std::byte> bytes) {
  if (lent_.patience > 0) --lent_.patience;
  // Else nobody has been found for it, or he has gone since.
  if (lent_.call.ctx != nullptr) owner_.on_asked(reply, bytes, lent_.call.ctx);
}

FrameReader::Next RemoteLink::violated(std::string_view how) {
  lose(Status(Code::kFailed, peer_ + " broke the protocol: " + std::string(how),
              "see its log; use programs of the same release on both sides", EPROTO));
  return FrameReader::Next::kStop;
}

void RemoteLink::refused(const wire::Header& header, const std::string& text) {
  const int err = wire::errno_from_wire(header.error);
  const Code code = err == EBUSY || err == ETIMEDOUT ? Code::kUnreachable : Code::kFailed;
  lose(Status(code, peer_ + " refused: " + text,
              err == EPROTONOSUPPORT ? "use programs of the same release on both sides" : "", err));
}

// --- the end -----------------------------------------------------------------

void RemoteLink::on_tick() {
  const auto now = Reactor::Clock::now();
  // If we were asleep ourselves, the silence was not the peer's.
  if (now - next_tick_ >= interval_) last_received_ = now;
  const auto quiet = now - last_received_;
  if (quiet >= 3 * interval_)
    return lose(
        Status(Code::kUnreachable,
               peer_ + " has been silent for " + std::to_string(3 * interval_.count()) + " ms", {},
               ETIMEDOUT));
  look_how_far();
  if (established_ && !pinging_ && 2 * quiet >= interval_) ping();
  next_tick();
  if (established_ && connection_->worn()) owner_.on_link_worn();
}

void RemoteLink::next_tick() {
  interval_ = options_.budget->keep_alive(options_.keep_alive);
  next_tick_ = Reactor::Clock::now() + interval_;
  tick_.arm(interval_);
}

void RemoteLink::ping() {
  Call* const call = take(Kind::kControl);
  if (call == nullptr) return;
  pinging_ = true;
  call->header.type = Type::kPing;
  call->ctx = this;
  call->done = [](void* ctx, const Reply&) { static_cast<RemoteLink*>(ctx)->pinging_ = false; };
  submit(*call, 0, Kind::kControl);
}

void RemoteLink::close() {
  const auto ended = std::move(connection_);
  take_back();
  tick_.disarm();
}

void RemoteLink::lose(const Status& reason) {
  if (!connection_) return;
  close();
  owner_.on_link_lost(reason);
}

}  // namespace rmem::store
