// SPDX-License-Identifier: MIT
#include "server/session.hh"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>

#include "base/bytes.hh"
#include "base/crc32c.hh"
#include "transport/address.hh"
#include "wire/errors.hh"

namespace rmem::server {

using wire::FrameReader;
using wire::Type;

namespace {

constexpr std::size_t kStaging = 16 << 10;
constexpr std::size_t kReceivePerTurn = 2 << 20;  // then others have their turn
constexpr std::size_t kGather = 64;               // buffers in one send
// Sent by one session before others, who may be more urgent, have their turn; and
// so much more if that ends a reply, whose last bytes would else need another turn.
constexpr std::size_t kSendPerTurn = 256 << 10;
constexpr std::size_t kTuneAfter = 4 << 20;
constexpr std::size_t kSendToEnd = 64 << 10;

std::string versions(std::uint16_t low, std::uint16_t high) {
  return low == high ? "version " + std::to_string(low)
                     : "versions " + std::to_string(low) + " to " + std::to_string(high);
}

}  // namespace

// What one OPEN gave.
struct Session::Handle final : Claimant {
  Handle(Session& session, std::shared_ptr<Export> opened, bool read_only)
      : session(session), exported(std::move(opened)), read_only(read_only) {}
  ~Handle() { exported->store->leave(*this); }

  // Nothing that this session still sends may be applied, and it has to learn
  // that: the connection goes.
  void superseded() override {
    stale = true;
    if (session.claiming_) return;  // by another handle of this very session
    session.log_.info("{}: closed, its writer has a newer session", session.peer_);
    session.close();
  }
  void fenced() override {
    session.log_.warning("{}: fenced, its claim on `{}' was taken over", session.peer_,
                         exported->name);
    stale = true;
  }

  Session& session;
  const std::shared_ptr<Export> exported;
  const bool read_only;
  bool stale = false;
};

// A request from its header to its reply.
struct Session::Request {
  Session* session = nullptr;
  wire::Header header;                 // the request's; then the reply's
  std::shared_ptr<ServedStore> store;  // which is at work on it
  bool modifies = false;
  std::uint64_t number = 0;    // of a modification; of a FLUSH: of the last in front of it,
  std::uint32_t in_front = 0;  // and how many of these are still at their stores
  // Payload of the request, then of the reply.
  Buffers::Buffer buffer;
  // Or it lies in the store's memory, which is kept until it has been sent.
  bool viewing = false;
  std::span<const std::byte> view;
  std::shared_ptr<ServedStore> viewed;
  // The reply as it is sent: once seal() has made it so.
  bool sealed = false;
  wire::HeaderBytes bare_header;  // of one that has no buffer
  std::uint32_t length = 0;       // of the payload before it was compressed,
  std::uint32_t tag = 0;          // for the compressor
  Request* next = nullptr;

  // Of the payload. Those of a view are for sending alone.
  const std::byte* bytes() const { return view.empty() ? buffer.bytes() : view.data(); }
  std::span<std::byte, wire::kHeaderBytes> reply_header() {
    return buffer.memory ? buffer.in_front() : bare_header;
  }
};

void Session::Queue::push(Request& request) {
  request.next = nullptr;
  (last != nullptr ? last->next : first) = &request;
  last = &request;
}

Session::Request& Session::Queue::pop() {
  Request& request = *first;
  if ((first = request.next) == nullptr) last = nullptr;
  return request;
}

Session::Session(Reactor& reactor, std::unique_ptr<transport::Connection> connection,
                 const Exports& exports, const SessionOptions& options, Buffers& buffers,
                 Audits& audits, Owner& owner)
    : reactor_(reactor),
      connection_(std::move(connection)),
      exports_(exports),
      options_(options),
      buffers_(buffers),
      audits_(audits),
      owner_(owner),
      peer_(connection_->peer()),
      host_(transport::host_of(peer_)),
      log_("session"),
      reader_(*this, kStaging),
      silence_(options_.silence),
      turn_end_(reactor, [this] { send(); }),
      deadline_(reactor, [this] { on_deadline(); }),
      last_progress_(Reactor::Clock::now()) {
  connection_->attach(*this);
  connection_->watch(true, false);
  deadline_.arm(options_.handshake_timeout);
}

Session::~Session() {
  let_go_held();
  // What had begun to arrive, too.
  for (const auto& request : requests_) buffers_.give(std::move(request->buffer));
}

// --- receiving ---------------------------------------------------------------

void Session::on_readable() {
  if (phase_ == Phase::kLeaving) return discard_input();
  receive_messages();
  std::size_t budget = kReceivePerTurn;
  while (phase_ != Phase::kClosed && phase_ != Phase::kLeaving && !paused_ && !draining_) {
    const auto space = reader_.receive_space();
    const std::size_t room = transport::total(space);
    const transport::IoResult got = connection_->receive(space);
    if (got.err == EAGAIN) break;
    if (got.bytes == 0) return close();
    last_progress_ = Reactor::Clock::now();
    judge(reader_.received(got.bytes));
    // There was no more; asking would cost a call for each small request.
    if (got.bytes < room || got.bytes >= budget) break;
    budget -= got.bytes;
  }
}

void Session::receive_messages() {
  std::size_t budget = kReceivePerTurn;
  while (phase_ != Phase::kClosed && phase_ != Phase::kLeaving && !paused_ && !draining_) {
    if (!connection_->receive_message(message_)) return;
    last_progress_ = Reactor::Clock::now();
    Request* const begun = std::exchange(receiving_, nullptr);
    judge(reader_.message(message_));
    receiving_ = begun;
    if (message_.size() >= budget) return;
    budget -= message_.size();
  }
}

void Session::judge(FrameReader::State state) {
  if (phase_ == Phase::kClosed || phase_ == Phase::kLeaving) return;
  if (state == FrameReader::State::kPaused) paused_ = true;
  if (state == FrameReader::State::kBroken) {
    std::string why = reader_.problem();
    if (reader_.error() == wire::error::kVersion)
      why += ": this server speaks " + versions(wire::kVersionMin, wire::kVersionMax) +
             ", the peer " + versions(reader_.header().version, reader_.header().version);
    return refuse(reader_.error(), why);
  }
  update_watch();
}

FrameReader::Next Session::on_header(const wire::Header& header, std::span<std::byte>& place) {
  if (header.reply() || header.type == Type::kRefuse) {
    refuse(wire::error::kProtocol, "a reply from a client", header.request);
    return FrameReader::Next::kStop;
  }
  receiving_ = &take_request(header);
  place = room(*receiving_, header.payload);
  return FrameReader::Next::kGoOn;
}

FrameReader::Next Session::on_frame(const wire::Header& header, bool intact) {
  Request& request = *std::exchange(receiving_, nullptr);
  if (phase_ == Phase::kHello && header.type != Type::kHello) {
    refuse(wire::error::kProtocol, "HELLO has to come first", header.request);
  } else if (phase_ != Phase::kHello && header.type == Type::kHello) {
    refuse(wire::error::kProtocol, "a second HELLO", header.request);
  } else if (phase_ != Phase::kHello && header.generation != generation_) {
    refuse(wire::error::kProtocol, "a frame of another connection", header.request);
  } else if (!intact) {
    // Who knows what else was damaged: answer this one, take nothing more.
    log_.warning("{}: {} with a wrong checksum", peer_, wire::type_name(header.type));
    reply_error(request, wire::error::kBadMessage, "checksum of the payload");
    refuse(wire::error::kBadMessage, "a payload with a wrong checksum", header.request);
  } else if (has_to_wait(request)) {
    held_ = &request;  // and nothing is read that came after it
  } else {
    dispatch(request);
  }
  if (phase_ == Phase::kClosed || phase_ == Phase::kLeaving) return FrameReader::Next::kStop;
  return overloaded() ? FrameReader::Next::kPause : FrameReader::Next::kGoOn;
}

bool Session::overloaded() {
  if (draining_ || held_ != nullptr) return true;
  if (phase_ == Phase::kHello || phase_ == Phase::kOpening) return under_way_ > 0;
  if (under_way_ >= options_.max_requests || bytes_under_way_ >= options_.max_bytes) return true;
  // Who has nothing under way goes on in any case, so that nobody waits for others alone.
  if (under_way_ == 0 || !buffers_.scarce()) return false;
  buffers_.wait(*this);
  return true;
}

void Session::discard_input() {
  std::array<std::byte, 4096> nowhere;
  const iovec space = {nowhere.data(), nowhere.size()};
  for (int i = 0; i < 16; ++i) {
    const transport::IoResult got = connection_->receive({&space, 1});
    if (got.err == EAGAIN) return;
    if (got.bytes == 0) return close();
  }
}

// --- requests ----------------------------------------------------------------

void Session::dispatch(Request& request) {
  const wire::Header& header = request.header;
  switch (header.type) {
    case Type::kHello:
      return hello(request);
    case Type::kOpen:
      return open(request);
    case Type::kPing:
      return reply(request, {});
    case Type::kClaim:
    case Type::kRelease:
    case Type::kRead:
    case Type::kWrite:
    case Type::kZero:
    case Type::kFlush:
    case Type::kClose:
      break;
    default: {
      const std::string_view name = wire::type_name(header.type);
      return reply_error(request, wire::error::kNotOffered,
                         name.empty()
                             ? "unknown operation " + std::to_string(static_cast<int>(header.type))
                             : "this server does not offer " + std::string(name));
    }
  }

  Handle* const handle = find_handle(header.handle);
  if (handle == nullptr) return reply_error(request, wire::error::kStale, "unknown handle");
  const bool may_be_stale = header.type == Type::kClose || header.type == Type::kRelease;
  if (handle->stale && !may_be_stale)
    return reply_error(request, wire::error::kStale, "another writer has taken over");
  switch (header.type) {
    case Type::kClaim:
      return claim(request, *handle);
    case Type::kRelease:
      return release(request, *handle);
    case Type::kRead:
      return read(request, *handle);
    case Type::kWrite:
    case Type::kZero:
      return modify(request, *handle);
    case Type::kFlush:
      return flush(request, *handle);
    default:  // CLOSE
      handles_[header.handle - 1].reset();
      return reply(request, {});
  }
}

void Session::hello(Request& request) {
  const wire::Header& header = request.header;
  const auto peer = wire::decode_hello({request.buffer.bytes(), header.payload});
  if (!peer || header.generation == 0)
    return refuse(wire::error::kProtocol, "a malformed HELLO", header.request);
  const std::uint16_t version = std::min(peer->version_max, wire::kVersionMax);
  if (version < peer->version_min || version < wire::kVersionMin)
    return refuse(wire::error::kVersion,
                  "no common version: this server speaks " +
                      versions(wire::kVersionMin, wire::kVersionMax) + ", the peer " +
                      versions(peer->version_min, peer->version_max),
                  header.request);

  version_ = static_cast<std::uint8_t>(version);
  generation_ = header.generation;
  peer_max_payload_ = peer->max_payload;
  // Either side may insist, and off this host we do.
  checksums_ = peer->features & wire::feature::kChecksum || !connection_->intact();
  // Without the feature, roles mean nothing.
  const bool lanes = peer->features & wire::feature::kLanes;
  if (lanes) role_ = peer->role;
  if (wire::carries_bulk(role_)) tune();
  reader_.set_version(version_);
  if (!peer->name.empty()) peer_ += " (" + peer->name + ")";
  phase_ = Phase::kOpening;

  wire::Hello mine;
  mine.version = version;
  mine.role = peer->role;
  zeros_ = peer->features & wire::feature::kZeros;
  if (options_.compress) codecs_ = peer->features & wire::feature::kCompression;
  if (codecs_ != 0) compressor_ = std::make_unique<wire::Compressor>(codecs_);
  mine.features = (checksums_ ? wire::feature::kChecksum : 0) |
                  (lanes ? wire::feature::kLanes : 0) | (zeros_ ? wire::feature::kZeros : 0) |
                  (peer->features & (wire::feature::kFlushBehind | wire::feature::kSides)) |
                  (connection_->backs_off() ? wire::feature::kBacksOff : 0) | codecs_;
  mine.max_payload = wire::kMaxPayload;
  mine.max_requests = options_.max_requests;
  silence_ = std::max(options_.silence, 10 * peer->silence);
  mine.silence = silence_;
  mine.session = peer->session;
  mine.name = "rmem-server " RMEM_VERSION;
  const std::vector<std::byte> payload = wire::encode(mine);
  std::memcpy(room(request, payload.size()).data(), payload.data(), payload.size());
  request.header.payload = static_cast<std::uint32_t>(payload.size());
  request.header.version = wire::kHelloVersion;
  reply(request, {});
}

void Session::open(Request& request) {
  const std::string name = wire::clean_text({request.buffer.bytes(), request.header.payload});
  const auto exported = request.header.payload <= wire::kMaxName ? exports_.find(name) : nullptr;
  const auto& identities = connection_->identities();
  if (exported == nullptr && identities.empty() && !exports_.has_secrets())
    return reply_error(request, wire::error::kNoEntry, "there is no export `" + name + "'");
  const Peer who = {identities, connection_->local()};
  const Access access = exported != nullptr ? exported->access(who) : Access::kNone;
  if (access == Access::kNone)
    return refuse_open(request, name, wire::error::kAccess,
                       "there is no export `" + name + "', or it is not for this peer");
  if (access == Access::kRead && !(request.header.flags & wire::flag::kReadOnly)) {
    if (allowed(exported->allow, who) == Access::kWrite)
      return reply_error(request, wire::error::kReadOnly, "export `" + name + "' is read-only");
    return refuse_open(request, name, wire::error::kReadOnly,
                       "export `" + name + "' is read-only for this peer");
  }
  if (handles_.size() >= wire::kMaxHandles)
    return reply_error(request, wire::error::kTooManyHandles, "too many handles");

  const bool reader = access == Access::kRead || request.header.flags & wire::flag::kReadOnly;
  handles_.push_back(std::make_unique<Handle>(*this, exported, reader));
  if (phase_ == Phase::kOpening) {
    phase_ = Phase::kOpen;
    reader_.set_max_payload(wire::kMaxPayload);
    deadline_.arm(silence_);
    log_.info("{}: opened `{}'{}{}", peer_, name, reader ? " for reading" : "",
              identities.empty() ? "" : " as " + describe(identities));
    owner_.on_session_opened(*this);
  }
  const store::Geometry& geometry = exported->store->store().geometry();
  const auto payload =
      wire::encode(wire::Opened{.size = geometry.size, .identity = geometry.identity});
  std::memcpy(room(request, payload.size()).data(), payload.data(), payload.size());
  request.header.payload = static_cast<std::uint32_t>(payload.size());
  request.header.handle = static_cast<std::uint32_t>(handles_.size());
  request.header.flags = reader ? wire::flag::kReadOnly : 0;
  reply(request, {0, geometry.epoch});
}

// The peer is told who it is taken for; what else it could be, is not its business.
void Session::refuse_open(Request& request, const std::string& name, std::uint32_t error,
                          const std::string& why) {
  const std::string who = describe(connection_->identities());
  const bool writing = !(request.header.flags & wire::flag::kReadOnly);
  audits_.access.refused(
      host_, peer_,
      "`" + name + "' " + (writing ? "for writing" : "for reading") + " to " + who + ": " + why);
  reply_error(request, error, why + " (" + who + ")");
}

void Session::check_rights() {
  if (phase_ != Phase::kOpen) return;
  const Peer who = {connection_->identities(), connection_->local()};
  for (const auto& handle : handles_) {
    if (handle == nullptr) continue;
    if (handle->exported->access(who) >= (handle->read_only ? Access::kRead : Access::kWrite))
      continue;
    const std::string& name = handle->exported->name;
    return refuse(wire::error::kAccess,
                  "the right to `" + name + "' was taken from " + describe(who.identities));
  }
}

// --- rates ---------------------------------------------------------------------

bool Session::has_to_wait(const Request& request) {
  const wire::Header& header = request.header;
  if (header.type != Type::kRead && header.type != Type::kWrite) return false;
  const Handle* const handle = find_handle(header.handle);
  if (handle == nullptr || handle->stale || header.length > wire::kMaxPayload) return false;
  Throttle& throttle =
      header.type == Type::kRead ? handle->exported->reads : handle->exported->writes;
  if (throttle.take(header.length, *this, role_ == wire::Role::kPages)) return false;
  throttled_by_ = handle->exported;
  return true;
}

void Session::may_go() {
  may_go_ = true;
  turn_end_.schedule();
}

void Session::there_is_room() { turn_end_.schedule(); }

void Session::let_go_held() {
  if (throttled_by_ != nullptr) {
    throttled_by_->reads.leave(*this);
    throttled_by_->writes.leave(*this);
    throttled_by_.reset();
  }
  may_go_ = false;
}

// --- requests of an open export --------------------------------------------------

void Session::claim(Request& request, Handle& handle) {
  ClaimRequest wish;
  if (request.header.payload != wish.writer.size())
    return reply_error(request, wire::error::kInvalid, "a writer's id has 16 bytes");
  if (handle.read_only)
    return reply_error(request, wire::error::kReadOnly, "opened for reading only");
  std::memcpy(wish.writer.data(), request.buffer.bytes(), wish.writer.size());
  wish.session = request.header.offset;
  wish.known = request.header.length;
  wish.take_over = request.header.flags & wire::flag::kTakeOver;

  if (role_ == wire::Role::kPages || role_ == wire::Role::kSide) {
    if (wish.take_over)
      return reply_error(request, wire::error::kInvalid, "only the bulk lane can take over");
    const int err = handle.exported->store->join(wish, handle);
    return claim_answered(request, handle, wish.writer, err, wish.known);
  }
  // The answer may come later, when this session is already gone; then the
  // handle has left the store, which forgets the call.
  claiming_ = true;
  handle.exported->store->claim(wish, handle,
                                [this, &request, &handle, wish](int err, std::uint64_t generation) {
                                  claim_answered(request, handle, wish.writer, err, generation);
                                });
  claiming_ = false;
}

void Session::claim_answered(Request& request, Handle& handle, const Uuid& writer, int err,
                             std::uint64_t generation) {
  const std::string& name = handle.exported->name;
  if (err == EBUSY)
    return reply_error(request, wire::error::kBusy, "another writer has claimed `" + name + "'");
  if (err == ESTALE)
    return reply_error(request, wire::error::kStale, "the claim on `" + name + "' was taken over");
  if (err == EPERM)
    return reply_error(request, wire::error::kPerm,
                       "no session of that number has the claim on `" + name + "'");
  if (err != 0) return reply_error(request, wire::wire_from_errno(err), "cannot claim");
  log_.info("{}: writer {} has {} `{}', generation {}", peer_, uuid_to_string(writer),
            role_ == wire::Role::kPages  ? "a page lane to"
            : role_ == wire::Role::kSide ? "a side lane to"
                                         : "claimed",
            name, generation);
  request.header.length = generation;
  request.header.payload = 0;
  request.header.flags = 0;
  reply(request, {0, handle.exported->store->store().geometry().epoch});
}

void Session::release(Request& request, Handle& handle) {
  if (handle.stale)
    return reply_error(request, wire::error::kStale, "another writer has taken over");
  const int err = handle.exported->store->release(handle);
  if (err == EPERM) return reply_error(request, wire::error::kPerm, "there is no claim to release");
  if (err != 0) return reply_error(request, wire::wire_from_errno(err), "cannot release");
  log_.info("{}: released `{}'", peer_, handle.exported->name);
  reply(request, {0, handle.exported->store->store().geometry().epoch});
}

void Session::read(Request& request, Handle& handle) {
  wire::Header& header = request.header;
  if (header.length == 0 || header.length > std::min(wire::kMaxPayload, peer_max_payload_))
    return reply_error(request, wire::error::kInvalid, "length out of the limits");
  header.payload = static_cast<std::uint32_t>(header.length);
  const store::Done done = begin(request, handle);
  store::Store& store = request.store->store();
  // Where nobody but the kernel has to look at them.
  request.viewing =
      !checksums_ && !compressor_ && connection_->socket() >= 0 && store.can_view(header.length);
  if (!request.viewing) return copy(request, done);
  store.view(header.offset, header.length, request.view, done, urgency());
}

void Session::copy(Request& request, const store::Done& done) {
  const wire::Header& header = request.header;
  request.store->store().read(header.offset, room(request, header.length), done, urgency());
}

store::Urgency Session::urgency() const {
  return wire::carries_bulk(role_) ? store::Urgency::kBulk : store::Urgency::kDemand;
}

void Session::modify(Request& request, Handle& handle) {
  if (!may_write(request, handle)) return;
  const wire::Header& header = request.header;
  const bool writing = header.type == Type::kWrite;
  if (wire::codec_of(header.flags) != wire::Codec::kNone && !decompress(request))
    return refuse(wire::error::kProtocol, "a payload that is not what its flags say",
                  header.request);
  if (header.length == 0 || (writing && header.length != header.payload))
    return reply_error(request, wire::error::kInvalid, "length and payload disagree");
  if (writing && checksums_ && !(header.flags & wire::flag::kChecksum))
    return refuse(wire::error::kProtocol, "a WRITE without the agreed checksum", header.request);
  const store::Done done = begin(request, handle);
  request.modifies = true;
  request.store->modification_started();
  request.number = ++modifications_;
  ++modifying_;
  store::Store& store = request.store->store();
  if (writing)
    store.write(header.offset, {request.buffer.bytes(), header.payload}, done);
  else
    store.zero(header.offset, header.length, done);
}

void Session::flush(Request& request, Handle& handle) {
  if (!may_write(request, handle)) return;
  if (!(request.header.flags & wire::flag::kBehind) || modifying_ == 0)
    return flush_now(request, handle);
  request.number = modifications_;
  request.in_front = modifying_;
  flushes_behind_.push_back(&request);
}

// What it did, or did not, will have been answered before what waits for it.
void Session::modification_over(std::uint64_t number) {
  --modifying_;
  std::size_t due = 0;
  for (Request* const one : flushes_behind_)
    if (number <= one->number && --one->in_front == 0) ++due;
  // The older ones have no more in front of them.
  for (; due > 0; --due) {
    Request& request = *flushes_behind_.front();
    flushes_behind_.erase(flushes_behind_.begin());
    // By now it may be closed, or another writer's.
    Handle* const handle = find_handle(request.header.handle);
    if (handle == nullptr || handle->stale)
      reply_error(request, wire::error::kStale, "another writer has taken over");
    else if (may_write(request, *handle))
      flush_now(request, *handle);
  }
}

void Session::flush_now(Request& request, Handle& handle) {
  const store::Done done = begin(request, handle);
  request.store->store().flush(done);
}

store::Done Session::begin(Request& request, const Handle& handle) {
  ++in_store_;
  request.store = handle.exported->store;
  return done_of(request);
}

store::Done Session::done_of(Request& request) {
  return {[](void* ctx, const store::Outcome& outcome) {
            auto& finished = *static_cast<Request*>(ctx);
            finished.session->finished_by_store(finished, outcome);
          },
          &request};
}

bool Session::may_write(Request& request, const Handle& handle) {
  if (handle.read_only) {
    reply_error(request, wire::error::kReadOnly, "opened for reading only");
  } else if (role_ == wire::Role::kPages || !handle.exported->store->claimed_by(handle)) {
    reply_error(request, wire::error::kPerm, "claim first");
  } else {
    return true;
  }
  return false;
}

Session::Handle* Session::find_handle(std::uint32_t number) const {
  if (number == 0 || number > handles_.size()) return nullptr;
  return handles_[number - 1].get();
}

void Session::finished_by_store(Request& request, const store::Outcome& outcome) {
  if (std::exchange(request.viewing, false)) {
    // Why it could not be had the ordinary way tells best.
    if (outcome.err != 0) request.view = {};
    if (request.view.empty()) return copy(request, done_of(request));
    request.viewed = request.store;
  }
  --in_store_;
  const auto store = std::exchange(request.store, nullptr);
  const bool modified = std::exchange(request.modifies, false);
  const std::uint64_t number = request.number;
  if (modified) store->modification_finished();
  answer(request, outcome);
  if (modified) modification_over(number);
}

void Session::answer(Request& request, const store::Outcome& outcome) {
  if (outcome.err == 0) return reply(request, outcome);
  // A full disk fails many requests; once is enough to be told.
  if (std::exchange(last_error_, outcome.err) != outcome.err)
    log_.warning("{}: {} of {}+{} failed: {}", peer_, wire::type_name(request.header.type),
                 request.header.offset, request.header.length, std::strerror(outcome.err));
  reply_error(request, wire::wire_from_errno(outcome.err), "");
}

// --- replies -----------------------------------------------------------------

Session::Request& Session::take_request(const wire::Header& header) {
  if (free_.empty()) {
    requests_.push_back(std::make_unique<Request>());
    free_.push_back(requests_.back().get());
    free_.reserve(requests_.size());
  }
  Request& request = *free_.back();
  free_.pop_back();
  request.session = this;
  request.header = header;
  request.next = nullptr;
  request.sealed = false;
  ++under_way_;
  return request;
}

// Instead of the one that it has.
void Session::use(Request& request, Buffers::Buffer buffer) {
  bytes_under_way_ += buffer.capacity;
  bytes_under_way_ -= request.buffer.capacity;
  buffers_.give(std::exchange(request.buffer, std::move(buffer)));
}

std::span<std::byte> Session::room(Request& request, std::size_t bytes) {
  if (request.buffer.capacity < bytes) use(request, buffers_.take(bytes));
  return {request.buffer.bytes(), bytes};
}

void Session::recycle(Request& request) {
  --under_way_;
  use(request, {});
  request.view = {};
  request.viewed = nullptr;
  free_.push_back(&request);
}

void Session::reply(Request& request, const store::Outcome& outcome) {
  wire::Header& header = request.header;
  header.error = 0;
  header.epoch = outcome.epoch;
  header.flags &= wire::flag::kReadOnly;
  // Requests with payload are answered without, unless the handler has put an
  // answer there.
  if (header.type == Type::kWrite || header.type == Type::kPing || header.type == Type::kRelease ||
      header.type == Type::kClose || header.type == Type::kZero || header.type == Type::kFlush)
    header.payload = 0;
  if (header.type == Type::kRead && zeros_ && request.view.empty() &&
      all_zeros({request.buffer.bytes(), header.payload})) {
    header.flags |= wire::flag::kZeros;
    header.payload = 0;
  }
  enqueue(request);
}

void Session::reply_error(Request& request, std::uint32_t error, std::string_view text) {
  text = text.substr(0, wire::kMaxErrorText);
  std::copy(text.begin(), text.end(), reinterpret_cast<char*>(room(request, text.size()).data()));
  request.header.error = error;
  request.header.payload = static_cast<std::uint32_t>(text.size());
  request.header.flags = 0;
  request.header.epoch = 0;
  enqueue(request);
}

void Session::enqueue(Request& request) {
  if (phase_ == Phase::kClosed) {
    recycle(request);
    return maybe_over();
  }
  request.header.flags |= wire::flag::kReply;
  const bool any_order = request.header.type == Type::kRead && connection_->unordered();
  (any_order ? out_messages_ : out_).push(request);
  turn_end_.schedule();
}

// Its turn to be sent has come.
void Session::seal(Request& request) {
  if (std::exchange(request.sealed, true)) return;
  wire::Header& header = request.header;
  const bool carries = header.type == Type::kRead && header.error == 0 && header.payload != 0;
  request.length = header.payload;
  request.tag = 0;
  if (carries && compressor_) {
    const auto offer = compressor_->offer({request.buffer.bytes(), header.payload});
    request.tag = offer.tag;
    if (offer.codec != wire::Codec::kNone) {
      std::ranges::copy(offer.bytes, request.buffer.bytes());
      header.flags |= wire::codec_flag(offer.codec);
      header.payload = static_cast<std::uint32_t>(offer.bytes.size());
    }
  }
  header.checksum = 0;
  if (carries && checksums_) {
    header.flags |= wire::flag::kChecksum;
    header.checksum = crc32c({request.buffer.bytes(), header.payload});
  }
  wire::encode(header, request.reply_header());
}

// It has been sent.
void Session::gone(Request& request) {
  if (compressor_ && request.tag != 0) compressor_->sent(request.length, request.tag);
  recycle(request);
}

// The WRITE as it was before the client compressed it. False: it makes no sense.
bool Session::decompress(Request& request) {
  wire::Header& header = request.header;
  const wire::Codec codec = wire::codec_of(header.flags);
  if (!(codecs_ & wire::codec_feature(codec))) return false;
  const std::size_t length = header.length;  // within the limits, or it had not been decoded
  auto buffer = buffers_.take(length);
  const bool made =
      wire::decompress(codec, {request.buffer.bytes(), header.payload}, {buffer.bytes(), length});
  use(request, std::move(buffer));
  if (!made) return false;
  header.payload = static_cast<std::uint32_t>(length);
  return true;
}

void Session::refuse(std::uint32_t error, std::string_view why, std::uint64_t number) {
  if (phase_ == Phase::kLeaving || phase_ == Phase::kClosed) return;
  audits_.protocol.refused(host_, peer_, std::string(why));
  if (held_ != nullptr) recycle(*std::exchange(held_, nullptr));
  let_go_held();
  wire::Header header;
  header.type = Type::kRefuse;
  Request& request = take_request(header);
  why = why.substr(0, wire::kMaxErrorText);
  std::memcpy(room(request, why.size()).data(), why.data(), why.size());
  header.version = wire::kHelloVersion;
  header.request = number;
  header.generation = generation_;
  header.error = error;
  header.payload = static_cast<std::uint32_t>(why.size());
  request.header = header;
  out_.push(request);
  phase_ = Phase::kLeaving;
  deadline_.arm(options_.linger);
  turn_end_.schedule();
  update_watch();
}

void Session::send() {
  if (may_go_ && held_ != nullptr) {
    let_go_held();
    dispatch(*std::exchange(held_, nullptr));
  }
  std::size_t turn = 0;
  if (!send_messages(turn)) return close();
  while (out_.first != nullptr && !blocked_) {
    if (turn >= kSendPerTurn) {
      blocked_ = true;  // it is not, so the next turn goes on
      break;
    }
    std::array<iovec, kGather> buffers;
    std::size_t count = 0;
    std::size_t gathered = 0;
    std::size_t skip = out_sent_;
    const auto add = [&](const std::byte* data, std::size_t length) {
      iovec* const last = count > 0 ? &buffers[count - 1] : nullptr;
      // One piece costs less to send than two.
      if (last != nullptr && static_cast<std::byte*>(last->iov_base) + last->iov_len == data)
        last->iov_len += length;
      else
        buffers[count++] = {const_cast<std::byte*>(data), length};
    };
    for (Request* one = out_.first;
         one != nullptr && count + 2 <= kGather && gathered < kSendPerTurn; one = one->next) {
      seal(*one);
      for (const std::span<const std::byte> part :
           {std::span<const std::byte>(one->reply_header()),
            std::span<const std::byte>(one->bytes(), one->header.payload)}) {
        if (skip >= part.size()) {
          skip -= part.size();
        } else {
          const std::size_t more =
              std::min(part.size() - skip, kSendPerTurn + kSendToEnd - gathered);
          if (more > 0) add(part.data() + skip, more);
          gathered += more;
          skip = 0;
        }
      }
    }
    const transport::IoResult sent = connection_->send(std::span(buffers).first(count));
    if (sent.err == EAGAIN) {
      blocked_ = true;
      break;
    }
    if (sent.err != 0) return close();
    blocked_ = false;
    last_progress_ = Reactor::Clock::now();
    turn += sent.bytes;
    out_sent_ += sent.bytes;
    if (wire::carries_bulk(role_) && (since_tuned_ += sent.bytes) >= kTuneAfter) tune();
    while (out_.first != nullptr && out_sent_ >= wire::kHeaderBytes + out_.first->header.payload) {
      Request& first = out_.pop();
      out_sent_ -= wire::kHeaderBytes + first.header.payload;
      gone(first);
    }
  }
  if (phase_ == Phase::kClosed) return;
  if (compressor_) compressor_->pause(out_.first != nullptr || out_messages_.first != nullptr);
  if (draining_ && under_way_ == 0) return close();
  if (paused_ && phase_ != Phase::kLeaving && !overloaded()) {
    paused_ = false;
    judge(reader_.resume());
  }
  if (phase_ != Phase::kClosed) update_watch();
}

// False: the connection has failed.
bool Session::send_messages(std::size_t& turn) {
  blocked_ = false;
  while (out_messages_.first != nullptr && phase_ != Phase::kClosed) {
    if (turn >= kSendPerTurn) {
      blocked_ = true;  // it is not, so the next turn goes on
      return true;
    }
    Request& reply = *out_messages_.first;
    seal(reply);
    const auto head = reply.reply_header();
    const std::array<iovec, 2> parts = {
        iovec{head.data(), head.size()},
        iovec{reply.buffer.bytes(), reply.header.payload},
    };
    const int err = connection_->send_message(parts);
    blocked_ = err == EAGAIN;
    if (blocked_) return true;
    if (err != 0 && err != EMSGSIZE) return false;
    (void)out_messages_.pop();
    if (err == EMSGSIZE) {
      out_.push(reply);
      continue;
    }
    last_progress_ = Reactor::Clock::now();
    turn += wire::kHeaderBytes + reply.header.payload;
    gone(reply);
  }
  return true;
}

// The way to the client may have become another.
void Session::tune() {
  since_tuned_ = 0;
  connection_->carry_bulk();
}

void Session::on_writable() {
  blocked_ = false;
  send();
}

void Session::on_hangup() { close(); }

void Session::update_watch() {
  connection_->watch(phase_ == Phase::kLeaving || (!paused_ && !draining_), blocked_);
}

// --- the end -----------------------------------------------------------------

void Session::on_deadline() {
  if (phase_ == Phase::kLeaving) {
    // A long turn may have ended here before its own end, where REFUSE would have gone.
    send();
    return close();
  }
  if (phase_ != Phase::kOpen)
    return refuse(wire::error::kTimedOut, "no OPEN within the time allowed");
  // What waits for the store, or for its rate, is the server's own slowness.
  const bool ours = in_store_ > 0 || held_ != nullptr;
  const auto quiet =
      ours ? Reactor::Clock::duration::zero() : Reactor::Clock::now() - last_progress_;
  if (quiet >= silence_) {
    log_.warning("{}: silent for too long", peer_);
    return close();
  }
  if (connection_->worn()) {
    log_.warning("{}: closed, its keys have served their time", peer_);
    return close();
  }
  deadline_.arm(silence_ - quiet);
}

void Session::drain() {
  if (phase_ == Phase::kClosed || draining_) return;
  draining_ = true;
  if (held_ != nullptr) may_go();  // soon is better than at its rate
  if (receiving_ != nullptr) recycle(*std::exchange(receiving_, nullptr));
  if (under_way_ == 0) return close();
  update_watch();
}

void Session::close() {
  if (phase_ == Phase::kClosed) return;
  if (phase_ == Phase::kOpen) log_.info("{}: closed", peer_);
  phase_ = Phase::kClosed;
  deadline_.disarm();
  let_go_held();
  buffers_.leave(*this);
  if (held_ != nullptr) recycle(*std::exchange(held_, nullptr));
  connection_.reset();
  handles_.clear();
  for (Request* const one : std::exchange(flushes_behind_, {})) recycle(*one);
  for (Queue* const queue : {&out_, &out_messages_})
    while (queue->first != nullptr) recycle(queue->pop());
  maybe_over();
}

void Session::maybe_over() {
  if (phase_ != Phase::kClosed || in_store_ > 0 || over_) return;
  over_ = true;
  owner_.on_session_over(*this);
}

}  // namespace rmem::server
