// SPDX-License-Identifier: MIT
#include "store/remote.hh"

#include <time.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <deque>
#include <limits>
#include <vector>

#include "store/range.hh"
#include "store/remote_link.hh"
#include "transport/connector.hh"
#include "wire/codec.hh"

namespace rmem::store {

using wire::Type;

namespace {

// Between two tries for a page lane: doubles up to this.
constexpr std::chrono::milliseconds kPageBackoffLast{10'000};

// With the bulk lane eight: where packets are lost (0.1 to 1 %, 25 ms) they have four to eight
// times the rate of one CUBIC connection, and four of them three to four times. They are not
// worth their set-up for less than a share.
constexpr unsigned kBulkConnections = 8;
// What one of several has at a time: what is slow keeps no more than that from the others; but
// 20 MB/s each over the longest way.
constexpr std::uint64_t kShare = 1 << 20;
constexpr std::uint64_t kShareRate = 20;  // bytes a microsecond

// With the page lane eight. TCP lets ten segments go at first, and after a pause; a page's
// request is one, and the page itself as many.
constexpr unsigned kPageConnections = 8;
constexpr std::uint32_t kAtOnce = 8;

constexpr auto kNever = std::numeric_limits<std::uint64_t>::max();

// Grows with every session of this host, across restarts of the program.
std::uint64_t session_number() {
  timespec now = {};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

// Out of the dictionary of Outcome.
int outcome_errno(int err) {
  switch (err) {
    case 0:
    case ENOSPC:
    case EIO:
    case EROFS:
    case EINVAL:
    case ESTALE:
    case ECANCELED:  // never the server's: the receiver's
      return err;
    case EPERM:  // has not claimed
      return EROFS;
    default:
      return EIO;
  }
}

// For the budget: all exports of a server have the same.
std::string server_name(const RemoteAddress& address) {
  if (!address.socket_path.empty()) return address.socket_path;
  return address.host + ':' + std::to_string(address.port);
}

transport::TlsOptions tls_options(const RemoteAddress& address, const RemoteOptions& options) {
  if (!address.tls_files.configured()) return options.tls;
  transport::TlsOptions files = address.tls_files;
  files.kernel = options.tls.kernel;
  files.congestion = options.tls.congestion;
  return files;
}

}  // namespace

struct RemoteStore::Impl {
  using Kind = RemoteLink::Kind;
  struct Lane;

  // One read(), write(), zero() or flush() until its completion.
  struct Op {
    Impl* store = nullptr;
    Lane* lane = nullptr;
    Type type{};
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::byte* bytes = nullptr;    // of a write: not modified
    Receiver* receiver = nullptr;  // instead of `bytes`
    void* receiver_ctx = nullptr;
    Sender* sender = nullptr;     // likewise
    std::uint16_t flags = 0;      // of its calls
    std::uint64_t issued = 0;     // bytes of it that have been made into calls
    std::uint32_t under_way = 0;  // calls
    bool whole = false;           // all of it has been issued
    int err = 0;                  // the first
    std::uint64_t epoch = 0;      // the oldest: a later flush has to match every part
    Done done;
    Op* previous = nullptr;  // in active_
    Op* next = nullptr;
    Op* behind = nullptr;  // in a backlog
  };

  // Operations with parts that no call was free for.
  struct Backlog {
    Op* first = nullptr;
    Op* last = nullptr;
    void push(Op& op) {
      op.behind = nullptr;
      (last != nullptr ? last->behind : first) = &op;
      last = &op;
    }
    void pop() {
      if ((first = first->behind) == nullptr) last = nullptr;
    }
  };

  // A connection, from the try for it to its end.
  struct Lane final : RemoteLink::Owner {
    Lane(Impl& store, wire::Role role) : store(store), role(role) {}
    void on_link_lost(const Status& why) override {
      switch (role) {
        case wire::Role::kPages:
          return store.on_pages_lost(*this);
        case wire::Role::kSide:
          return store.on_side_lost(*this, why);
        default:
          return store.on_bulk_lost(why);
      }
    }
    void on_asked(const RemoteLink::Reply& reply, std::span<const std::byte> bytes,
                  void* ctx) override {
      store.on_asked(reply, bytes, ctx);
    }
    void on_link_worn() override {
      role == wire::Role::kPages ? store.on_pages_lost(*this) : store.renew();
    }
    bool is_bulk() const { return this == &store.bulk; }

    Impl& store;
    const wire::Role role;
    std::unique_ptr<transport::Connector> connector;
    std::unique_ptr<RemoteLink> link;
    std::uint32_t handle = 0;
    bool ready = false;        // for operations
    std::uint32_t ops = 0;     // that it has,
    std::uint64_t length = 0;  // and all of theirs
    Backlog reads;
    Backlog modifications;
  };

  Impl(Reactor& reactor, RemoteAddress address, const RemoteOptions& options, Listener& listener)
      : reactor(reactor),
        address(std::move(address)),
        options(options),
        listener(listener),
        budget(options.budget ? options.budget : std::make_shared<ConnectionBudget>(reactor)),
        tls(transport::TlsSide::kClient, tls_options(this->address, options)),
        expected(options.expected),
        turn(*budget, server_name(this->address), [this] { connect(); }),
        open_timer(reactor, [this] { on_open_timeout(); }),
        retry_timer(reactor, [this] { attempt(); }),
        pages_timer(reactor, [this] { pages.connector || pages.link ? no_pages() : open_pages(); }),
        bursts_timer(reactor, [this] { look_at_bursts(); }),
        sides_timer(reactor, [this] { give_up_sides(); }),
        bury(reactor, [this] { dead.clear(); }) {
    if (expected) geometry = *expected;
  }

  // --- opening ---------------------------------------------------------------

  // Somebody waits for open(), and gets an answer soon; resuming may take its time.
  void attempt() {
    if (state == State::kIdle) state = State::kConnecting;
    attempting = true;
    turn.ask(opened != nullptr);
  }

  void connect() {
    open_timer.arm(options.open_timeout);
    if (next) return first_connected(std::move(next));
    bulk.connector = std::make_unique<transport::Connector>(
        reactor, local_only(),
        [this](Result<std::unique_ptr<transport::Connection>> connection) {
          if (!connection) return attempt_failed(connection.status());
          server = bulk.connector->connected_to();
          first_connected(std::move(connection).value());
        },
        over());
    transport::Address to{.host = address.host,
                          .port = address.port,
                          .path = address.socket_path,
                          .kind = address.kind};
    bulk.connector->start(to);
  }

  void first_connected(std::unique_ptr<transport::Connection> connection) {
    session = session_number();
    on_connected(bulk, std::move(connection));
  }

  // The keys of the bulk lane are worn. While another connection is being made it goes on;
  // then it is lost, and there is one already.
  void renew() {
    if (renewal || state != State::kUp) return;
    renewal = std::make_unique<transport::Connector>(
        reactor, local_only(),
        [this](Result<std::unique_ptr<transport::Connection>> connection) {
          // Whatever failed will be tried again, or it shows on the bulk lane.
          if (!connection) return renewal.reset();
          next = std::move(connection).value();
          on_bulk_lost(Status(Code::kUnreachable,
                              "the keys have served their time, new ones follow", {}, EAGAIN));
        },
        over());
    renewal->start(server);
  }

  bool local_only() const { return !options.insecure && !address.secure(); }

  std::optional<transport::Connector::Tls> over() {
    if (!address.secure()) return std::nullopt;
    return transport::Connector::Tls{
        tls, address.tls_hostname.empty() ? address.host : address.tls_hostname,
        address.kind == transport::Address::Kind::kQuic};
  }

  void on_open_timeout() {
    const bool silent = bulk.link != nullptr;
    attempt_failed(Status(
        Code::kUnreachable,
        address.to_string() +
            (silent ? ": connected, but no answer within " : ": no connection within ") +
            std::to_string(options.open_timeout.count()) + " ms",
        silent ? "is that an rmem-server, and is it alive?" : "may this host reach the server?",
        ETIMEDOUT));
  }

  void on_connected(Lane& lane, std::unique_ptr<transport::Connection> connection) {
    RemoteLink::Options link_options;
    link_options.checksum = options.checksum.value_or(!connection->intact());
    link_options.keep_alive = options.keep_alive;
    link_options.budget = budget.get();
    link_options.session = session_id;
    if (++generation == 0) generation = 1;
    link_options.generation = generation;
    link_options.role = lane.role;
    // On the page lane they would have to pass through us.
    if (wire::carries_bulk(lane.role)) link_options.codecs = codecs(*connection);
    lane.link = std::make_unique<RemoteLink>(reactor, std::move(connection), link_options, lane);
    lane.link->start();
    send_open(lane);
  }

  std::uint64_t codecs(const transport::Connection& connection) const {
    switch (options.compression) {
      case Compression::kLz4:
        return wire::feature::kLz4;
      case Compression::kZstd:
        return wire::feature::kZstd;
      case Compression::kAuto:
        if (!connection.intact()) return wire::feature::kCompression;
        break;
      case Compression::kOff:
        break;
    }
    return 0;
  }

  void send_open(Lane& lane) {
    RemoteLink::Call& call = *lane.link->take(Kind::kControl);
    call.header.type = Type::kOpen;
    call.header.flags = options.read_only ? wire::flag::kReadOnly : 0;
    call.out = std::as_bytes(std::span(address.export_name));
    call.ctx = &lane;
    call.done = [](void* ctx, const RemoteLink::Reply& reply) {
      auto& self = *static_cast<Lane*>(ctx);
      self.is_bulk() ? self.store.on_opened(reply) : self.store.on_other_opened(self, reply);
    };
    lane.link->submit(call, 0, Kind::kControl);
  }

  void on_opened(const RemoteLink::Reply& reply) {
    if (reply.err != 0) return attempt_failed(refusal(reply));
    const auto opened = wire::decode_opened(reply.payload);
    if (!opened || reply.header.handle == 0)
      return attempt_failed(
          Status(Code::kFailed, bulk.link->peer() + " broke the protocol: OPEN", {}, EPROTO));
    if (expected && (opened->identity != expected->identity || opened->size != expected->size)) {
      const bool size = opened->size != expected->size;
      return attempt_failed(
          Status(Code::kCorrupt,
                 address.to_string() + " is another store now: " +
                     (size ? "it has " + std::to_string(opened->size) + " bytes, not " +
                                 std::to_string(expected->size)
                           : "identity " + uuid_to_string(opened->identity) + ", not " +
                                 uuid_to_string(expected->identity)),
                 "bring the old store back, or detach and attach the new one", ESTALE),
          true);
    }
    bulk.handle = reply.header.handle;
    geometry.size = opened->size;
    geometry.identity = opened->identity;
    geometry.read_only = options.read_only || reply.header.flags & wire::flag::kReadOnly;
    geometry.epoch = reply.header.epoch;
    if (!expected) expected = geometry;
    if (held)
      send_claim(bulk, *held);
    else
      became_up();
  }

  // What an error reply to OPEN means to whoever wants to attach.
  Status refusal(const RemoteLink::Reply& reply) const {
    const std::string text = address.to_string() + ": " + wire::clean_text(reply.payload);
    switch (reply.err) {
      case ENOENT:
        return Status(Code::kNotFound, text, "check the export's name at the server", ENOENT);
      case EACCES:
        return Status(Code::kPermission, text,
                      "check the export's name, and who may use it at the server", EACCES);
      case EROFS:
        return Status(Code::kPermission, text, "use --read-only", EROFS);
      default:
        return Status(Code::kFailed, text, {}, reply.err);
    }
  }

  void became_up() {
    attempting = false;
    open_timer.disarm();
    backoff = {};
    const bool again = state == State::kDown;
    state = State::kUp;
    reason = Status();
    bulk.ready = true;
    if (bulk_connections() > 1) sides_from = options.bulk_connections != 0 ? 1 : kShare;
    if (held || options.read_only)
      open_pages();
    else
      turn.end();
    if (opened) return std::exchange(opened, nullptr)(geometry);
    if (again) ++counters.reconnects;
    listener.on_up();
  }

  void attempt_failed(const Status& why, bool final = false) {
    attempting = false;
    drop_connections();
    if (opened) {
      state = State::kIdle;
      return std::exchange(opened, nullptr)(why);
    }
    if (final) return fail(why);
    const bool news = state != State::kDown || why.cause() != reason.cause();
    state = State::kDown;
    reason = why;
    retry_later();
    if (news) listener.on_down(why);
  }

  void retry_later() {
    backoff = std::clamp(2 * backoff, options.backoff_first, options.backoff_last);
    // Somewhere in the upper half, so that those who lost one server do not all
    // come back to it at the same moment.
    const auto half = std::max<std::int64_t>(1, backoff.count() / 2);
    retry_timer.arm(std::chrono::milliseconds(
        half + static_cast<std::int64_t>(random_u64() % static_cast<std::uint64_t>(half))));
  }

  // --- the page lane ---------------------------------------------------------

  // Whatever goes wrong on the way is no reason to do without the bulk lane, and
  // if it concerns that, too, it will show there.
  void open_pages() {
    if (!bulk.link->lanes()) return turn.end();
    pages_timer.arm(options.open_timeout);
    join(pages);
  }

  // Another lane, to the bulk lane's server, export and claim.
  void join(Lane& lane) {
    lane.connector = std::make_unique<transport::Connector>(
        reactor, local_only(),
        [this, &lane](Result<std::unique_ptr<transport::Connection>> connection) {
          if (!connection) return no_lane(lane);
          on_connected(lane, std::move(connection).value());
        },
        over());
    // Where a name has several addresses, the same one.
    lane.connector->start(server);
  }

  // Whether it leads to the bulk lane's store, in the same life of that.
  bool same_store(const RemoteLink::Reply& reply) const {
    const auto opened = reply.err == 0 ? wire::decode_opened(reply.payload) : std::nullopt;
    return opened && reply.header.handle != 0 && opened->identity == geometry.identity &&
           opened->size == geometry.size && reply.header.epoch == geometry.epoch;
  }

  void on_other_opened(Lane& lane, const RemoteLink::Reply& reply) {
    if (!same_store(reply)) return no_lane(lane);
    lane.handle = reply.header.handle;
    if (held) return send_claim(lane, *held);
    lane_ready(lane);
  }

  void on_joined(Lane& lane, const RemoteLink::Reply& reply) {
    reply.err == 0 ? lane_ready(lane) : no_lane(lane);
  }

  void lane_ready(Lane& lane) {
    if (&lane == &pages) return pages_ready();
    lane.role == wire::Role::kPages ? burst_ready(lane) : side_ready(lane);
  }
  void no_lane(Lane& lane) {
    if (&lane == &pages) return no_pages();
    lane.role == wire::Role::kPages ? drop(lane) : no_side(lane);
  }

  void pages_ready() {
    turn.end();
    pages_timer.disarm();
    pages_backoff = {};
    pages.ready = true;
    lend();
  }

  void lend() {
    if (!pages.ready || asker == nullptr) return;
    pages.link->lend(*asker, pages.handle, longest_asked, asker_receives,
                     page_connections() > 1 ? kAtOnce : 0);
  }

  // A read of the asker's is over.
  void on_asked(const RemoteLink::Reply& reply, std::span<const std::byte> bytes, void* ctx) {
    const int err = reply.err == 0 ? 0 : outcome_errno(reply.err);
    if (err == 0) {
      geometry.epoch = reply.header.epoch;
      counters.bytes_read += reply.header.length;
    }
    asker->answered(ctx, {err, err == 0 ? reply.header.epoch : 0}, bytes);
    if (err == ESTALE && state == State::kUp) taken_over();
  }

  void no_pages() {
    turn.end();
    drop(pages);
    pages_backoff = std::clamp(2 * pages_backoff, options.backoff_first, kPageBackoffLast);
    pages_timer.arm(pages_backoff);
  }

  void on_pages_lost(Lane& lost) {
    counters.page_lanes_lost += lost.ready;
    no_lane(lost);
    // From the first byte on, the oldest first.
    Op* op = active;
    while (op != nullptr && op->next != nullptr) op = op->next;
    for (; op != nullptr; op = op->previous) {
      if (op->lane != &lost) continue;
      unassign(*op);
      op->issued = op->under_way = 0;
      op->whole = false;
      op->err = 0;
      op->epoch = 0;
      reads.push(*op);
    }
    pump();
  }

  // --- burst lanes -----------------------------------------------------------

  unsigned page_connections() const {
    if (options.page_connections != 0) return options.page_connections;
    return pages.link->round_trip() >= transport::kDistant ? kPageConnections : 1;
  }

  // As many demands at once as one connection does not let go.
  bool needs_bursts() const {
    return !bursts_open && pages.ops > (options.page_connections != 0 ? 1 : kAtOnce) &&
           page_connections() > 1;
  }

  // Those that come up share what the page lane carries; those that do not are done without.
  void open_bursts() {
    bursts_open = true;
    while (burst_lanes.size() + 1 < page_connections())
      burst_lanes.emplace_back(*this, wire::Role::kPages);
    bursts_timer.arm(options.open_timeout);
    for (Lane& burst : burst_lanes) join(burst);
  }

  void burst_ready(Lane& burst) { burst.ready = bursts_used = true; }

  void look_at_bursts() {
    const bool used = std::exchange(bursts_used, false);
    bursts_open = false;
    for (Lane& burst : burst_lanes) {
      if (!burst.ready || (!used && burst.ops == 0)) drop(burst);
      bursts_open |= burst.ready;
    }
    if (bursts_open) bursts_timer.arm(options.burst_lanes_kept);
  }

  // The one with the least to carry, of which tasks that ask by themselves have a share.
  Lane& lane_for_page() {
    Lane* least = &pages;
    std::uint64_t length = pages.length + (pages.link->lends() ? kAtOnce * longest_asked : 0);
    for (Lane& burst : burst_lanes) {
      if (!burst.ready || burst.length >= length) continue;
      least = &burst;
      length = burst.length;
    }
    bursts_used |= least != &pages;
    return *least;
  }

  // --- side lanes ------------------------------------------------------------

  // Where the congestion control of either end takes each packet that is lost for a full queue,
  // one connection has a fraction of a long way. Those that come up share what the bulk lane
  // carries; those that do not are done without.
  unsigned bulk_connections() const {
    if (!bulk.link->knows_sides()) return 1;
    if (options.bulk_connections != 0) return options.bulk_connections;
    return bulk.link->backs_off() ? kBulkConnections : 1;
  }

  void open_sides() {
    sides_from = kNever;
    sides_open = true;
    while (sides.size() + 1 < bulk_connections()) sides.emplace_back(*this, wire::Role::kSide);
    sides_timer.arm(options.open_timeout);
    for (Lane& side : sides) join(side);
  }

  void side_ready(Lane& side) {
    side.ready = sides_open = true;
    pump();
  }

  void no_side(Lane& side) {
    drop(side);
    sides_open = std::any_of(sides.begin(), sides.end(),
                             [](const Lane& one) { return one.connector || one.link; });
    if (!sides_open && state == State::kUp) pump();
  }

  void give_up_sides() {
    for (Lane& side : sides)
      if (!side.ready && (side.connector || side.link)) no_side(side);
  }

  // The server may still have a write from it, and apply that later than one that we would send
  // again elsewhere. Only the next claim keeps it from that.
  void on_side_lost(Lane& side, const Status& why) {
    side.ready ? on_bulk_lost(why) : no_side(side);
  }

  // What is read and written in bulk waits for a lane then.
  bool shares() const { return sides_open || sides_from != kNever; }

  std::uint64_t share() const {
    const auto way = static_cast<std::uint64_t>(bulk.link->round_trip().count());
    return std::max(kShare, way * kShareRate);
  }

  // The one with the least to carry; null: none should have more.
  Lane* lane_for_bulk() {
    Lane* least = &bulk;
    for (Lane& side : sides)
      if (side.ready && side.length < least->length) least = &side;
    return shares() && least->length >= share() ? nullptr : least;
  }

  void distribute() {
    for (const bool reading : {true, false}) {
      Backlog& waiting = reading ? reads : modifications;
      while (waiting.first != nullptr) {
        Lane* const lane = lane_for_bulk();
        if (lane == nullptr) break;
        Op& op = *waiting.first;
        waiting.pop();
        assign(op, *lane);
        (reading ? lane->reads : lane->modifications).push(op);
      }
    }
  }

  // --- losing ----------------------------------------------------------------

  void on_bulk_lost(const Status& why) {
    if (attempting) return attempt_failed(why);
    state = State::kDown;
    reason = why;
    auto prepared = std::move(next);
    drop_connections();
    next = std::move(prepared);
    next ? retry_timer.arm(std::chrono::milliseconds(0)) : retry_later();
    end_operations(EAGAIN);
    const Status lost(Code::kUnreachable, why.cause(), why.hint(), EAGAIN);
    if (claiming) std::exchange(claiming, nullptr)(lost);
    if (const Finished done = std::exchange(releasing, nullptr)) {
      close();
      return done(lost);
    }
    if (state == State::kDown) listener.on_down(why);
  }

  void fail(const Status& why) {
    state = State::kFailed;
    reason = why;
    drop_connections();
    end_operations(ESTALE);
    if (claiming) std::exchange(claiming, nullptr)(why);
    if (releasing) std::exchange(releasing, nullptr)(why);
    if (state == State::kFailed) listener.on_failed(why);
  }

  void taken_over() {
    fail(Status(Code::kBusy, address.to_string() + ": another writer has taken over",
                "this writer's view of the store is out of date", ESTALE));
  }

  void close() {
    attempting = false;
    drop_connections();
    state = State::kIdle;
    reason = Status();
    expected = options.expected;
    held.reset();
    backoff = {};
    end_operations(EAGAIN);
    const Status closed(Code::kUnreachable, address.to_string() + ": closed", {}, EAGAIN);
    if (opened) std::exchange(opened, nullptr)(closed);
    if (claiming) std::exchange(claiming, nullptr)(closed);
    if (releasing) std::exchange(releasing, nullptr)(closed);
  }

  void drop_connections() {
    turn.end();
    open_timer.disarm();
    retry_timer.disarm();
    pages_timer.disarm();
    pages_backoff = {};
    bursts_timer.disarm();
    bursts_open = false;
    sides_timer.disarm();
    sides_from = kNever;
    sides_open = false;
    renewal.reset();
    next.reset();
    for (Lane& side : sides) drop(side);
    for (Lane& burst : burst_lanes) drop(burst);
    drop(pages);
    drop(bulk);
  }

  void drop(Lane& lane) {
    lane.ready = false;
    lane.reads = lane.modifications = {};
    lane.connector.reset();
    if (!lane.link) return;
    checksum_errors_before += lane.link->checksum_errors();
    bytes_saved_before += lane.link->bytes_saved();
    lane.link->close();
    // We may have been called by it.
    dead.push_back(std::move(lane.link));
    bury.schedule();
  }

  void end_operations(int err) {
    reads = modifications = {};
    while (Op* const op = active) complete(*op, {err, 0});
  }

  // --- claim -----------------------------------------------------------------

  // On the other lanes it joins the claim that the bulk lane has.
  void send_claim(Lane& lane, const WriterClaim& claim) {
    asked = claim;
    RemoteLink::Call& call = *lane.link->take(Kind::kControl);
    call.header.type = Type::kClaim;
    call.header.flags = claim.take_over ? wire::flag::kTakeOver : 0;
    call.header.offset = session;
    call.header.length = claim.generation;
    call.out = std::as_bytes(std::span(asked.writer));
    call.ctx = &lane;
    call.done = [](void* ctx, const RemoteLink::Reply& reply) {
      auto& self = *static_cast<Lane*>(ctx);
      self.is_bulk() ? self.store.on_claimed(reply) : self.store.on_joined(self, reply);
    };
    lane.link->submit(call, lane.handle, Kind::kControl);
  }

  void on_claimed(const RemoteLink::Reply& reply) {
    Status status;
    if (reply.err == 0) {
      held = WriterClaim{asked.writer, false, reply.header.length};
    } else {
      const std::string text = address.to_string() + ": " + wire::clean_text(reply.payload);
      if (reply.err == EBUSY)
        status = Status(Code::kBusy, text, "detach it there first, or use --take-over",
                        attempting ? ESTALE : EBUSY);
      else if (reply.err == ESTALE)
        status =
            Status(Code::kBusy, text, "this writer's view of the store is out of date", ESTALE);
      else
        status = Status::from_errno(reply.err, text);
    }
    if (attempting) {
      if (status.ok()) return became_up();
      return attempt_failed(status, status.code() == Code::kBusy);
    }
    if (status.ok() && !pages.link && !pages.connector) open_pages();
    std::exchange(claiming, nullptr)(status);
  }

  void send_release() {
    RemoteLink::Call& call = *bulk.link->take(Kind::kControl);
    call.header.type = Type::kRelease;
    call.ctx = this;
    call.done = [](void* ctx, const RemoteLink::Reply& reply) {
      auto& self = *static_cast<Impl*>(ctx);
      Status status;
      if (reply.err == ESTALE)
        status =
            Status(Code::kBusy, self.address.to_string() + ": " + wire::clean_text(reply.payload),
                   {}, ESTALE);
      else if (reply.err != 0)
        status = Status::from_errno(reply.err, self.address.to_string() + ": cannot release");
      const Finished done = std::exchange(self.releasing, nullptr);
      self.close();
      done(status);
    };
    bulk.link->submit(call, bulk.handle, Kind::kControl);
  }

  // --- operations ------------------------------------------------------------

  void start(Type type, std::uint64_t offset, std::uint64_t length, std::byte* bytes, Done done,
             Urgency urgency = Urgency::kBulk, Receiver* receiver = nullptr,
             void* receiver_ctx = nullptr, Sender* sender = nullptr, std::uint16_t flags = 0) {
    if (state != State::kUp) return done({state == State::kFailed ? ESTALE : EAGAIN, 0});
    if (type != Type::kFlush && !inside(offset, length, geometry.size)) return done({EINVAL, 0});
    if (type != Type::kRead && geometry.read_only) return done({EROFS, 0});
    if (free_ops == nullptr) {
      all_ops.emplace_back();
      all_ops.back().next = free_ops;
      free_ops = &all_ops.back();
    }
    Op& op = *free_ops;
    free_ops = op.next;
    op = Op{};
    op.store = this;
    op.type = type;
    op.offset = offset;
    op.length = length;
    op.bytes = bytes;
    op.receiver = receiver;
    op.receiver_ctx = receiver_ctx;
    op.sender = sender;
    op.flags = flags;
    op.done = done;
    op.next = active;
    if (active != nullptr) active->previous = &op;
    active = &op;
    if (type == Type::kRead && urgency == Urgency::kDemand && pages.ready) {
      Lane& lane = lane_for_page();
      assign(op, lane);
      lane.reads.push(op);
    } else if (type == Type::kRead || type == Type::kWrite) {
      (type == Type::kRead ? reads : modifications).push(op);
    } else {
      assign(op, bulk);
      bulk.modifications.push(op);
    }
    pump();
    if (pages.ready && needs_bursts()) open_bursts();
    if (bulk.length >= sides_from && (held || options.read_only)) open_sides();
  }

  static void assign(Op& op, Lane& lane) {
    op.lane = &lane;
    ++lane.ops;
    lane.length += op.length;
  }

  static void unassign(Op& op) {
    Lane* const lane = std::exchange(op.lane, nullptr);
    if (lane == nullptr) return;
    --lane->ops;
    lane->length -= op.length;
  }

  // Makes calls of what waits, reads first.
  void pump() {
    distribute();
    each_lane([this](Lane& lane) { pump(lane); });
  }

  void pump(Lane& lane) {
    while (lane.reads.first != nullptr && issue(*lane.reads.first, Kind::kRead)) lane.reads.pop();
    while (lane.modifications.first != nullptr && issue(*lane.modifications.first, Kind::kBulk))
      lane.modifications.pop();
  }

  // Whether all of the operation has been issued.
  bool issue(Op& op, Kind kind) {
    const bool carries_bytes = op.type == Type::kRead || op.type == Type::kWrite;
    while (!op.whole) {
      RemoteLink::Call* const call = op.lane->link->take(kind);
      if (call == nullptr) return false;
      const std::uint64_t slice =
          carries_bytes && op.receiver == nullptr
              ? std::min<std::uint64_t>(op.length - op.issued, op.lane->link->slice())
              : op.length;
      call->header.type = op.type;
      call->header.flags = op.flags;
      call->header.offset = op.type == Type::kFlush ? 0 : op.offset + op.issued;
      call->header.length = slice;
      call->receiver = op.receiver;
      call->receiver_ctx = op.receiver_ctx;
      if (op.type == Type::kRead && op.receiver == nullptr)
        call->in = {op.bytes + op.issued, slice};
      call->sender = op.sender;
      if (op.type == Type::kWrite && op.sender == nullptr)
        call->out = {op.bytes + op.issued, slice};
      call->ctx = &op;
      call->done = [](void* ctx, const RemoteLink::Reply& reply) {
        auto& self = *static_cast<Op*>(ctx);
        self.store->on_part(self, reply);
      };
      op.issued += slice;
      op.whole = op.issued == op.length;
      ++op.under_way;
      op.lane->link->submit(*call, op.lane->handle, kind);
    }
    return true;
  }

  void on_part(Op& op, const RemoteLink::Reply& reply) {
    --op.under_way;
    if (reply.err != 0) {
      if (op.err == 0) op.err = outcome_errno(reply.err);
    } else {
      if (op.epoch == 0) op.epoch = reply.header.epoch;
      geometry.epoch = reply.header.epoch;
      if (op.type == Type::kRead) counters.bytes_read += reply.header.payload;
      if (op.type == Type::kWrite) counters.bytes_written += reply.header.length;
    }
    if (op.whole && op.under_way == 0) {
      const bool stale = op.err == ESTALE;
      complete(op, {op.err, op.err == 0 ? op.epoch : 0});
      if (stale && state == State::kUp) return taken_over();
    }
    if (state == State::kUp) pump();
  }

  void complete(Op& op, const Outcome& outcome) {
    (op.previous != nullptr ? op.previous->next : active) = op.next;
    if (op.next != nullptr) op.next->previous = op.previous;
    unassign(op);
    const Done done = op.done;
    op.next = free_ops;
    free_ops = &op;
    done(outcome);
  }

  Reactor& reactor;
  const RemoteAddress address;
  const RemoteOptions options;
  Listener& listener;
  const std::shared_ptr<ConnectionBudget> budget;  // outlives the links
  const Uuid session_id = uuid_random();
  transport::TlsFiles tls;

  State state = State::kIdle;
  Status reason;
  bool attempting = false;  // between attempt() and up, or its failure
  std::optional<Geometry> expected;
  Geometry geometry;
  std::optional<WriterClaim> held;
  WriterClaim asked;  // in the CLAIM that is under way
  Opened opened;      // of open(), until it has been called
  Finished claiming;  // of claim()
  Finished releasing;
  std::chrono::milliseconds backoff{};
  mutable Counters counters;
  std::uint64_t checksum_errors_before = 0;  // of links that are gone
  std::uint64_t bytes_saved_before = 0;

  // Every lane that there may be.
  template <typename Visit>
  void each_lane(Visit visit) {
    visit(pages);
    for (Lane& burst : burst_lanes) visit(burst);
    visit(bulk);
    for (Lane& side : sides) visit(side);
  }

  // The store is up when the bulk lane is ready. That may be without the others,
  // never the other way round.
  Lane bulk{*this, wire::Role::kBulk};
  Lane pages{*this, wire::Role::kPages};
  std::deque<Lane> burst_lanes;  // further page lanes
  bool bursts_open = false;      // or being opened
  bool bursts_used = false;      // of late
  std::deque<Lane> sides;
  std::uint64_t sides_from = kNever;  // bytes under way on the bulk lane: time to open them
  bool sides_open = false;            // or being opened, one at least
  std::unique_ptr<transport::Connector> renewal;  // of the bulk lane, whose keys are worn
  std::unique_ptr<transport::Connection> next;    // what came of that
  transport::SocketAddress server;                // where the bulk lane leads
  std::vector<std::unique_ptr<RemoteLink>> dead;  // closed, to be destroyed
  std::uint32_t generation = static_cast<std::uint32_t>(random_u64());
  std::uint64_t session = 0;

  Asker* asker = nullptr;
  std::uint64_t longest_asked = 0;
  bool asker_receives = false;

  std::deque<Op> all_ops;
  Op* free_ops = nullptr;
  Op* active = nullptr;
  Backlog reads;  // of bulk, that no lane has yet
  Backlog modifications;

  // While it connects, first the bulk lane and then, for the first time, the page lane.
  ConnectionBudget::Turn turn;
  Reactor::Timer open_timer;
  Reactor::Timer retry_timer;
  Reactor::Timer pages_timer;  // of the try under way, or until the next one
  std::chrono::milliseconds pages_backoff{};
  Reactor::Timer bursts_timer;
  Reactor::Timer sides_timer;
  Reactor::TurnEnd bury;
};

Result<std::unique_ptr<RemoteStore>> RemoteStore::create(Reactor& reactor, RemoteAddress address,
                                                         const RemoteOptions& options,
                                                         Listener& listener) {
  if (address.kind == transport::Address::Kind::kQuic && transport::quic_version() == nullptr)
    return transport::quic_absent().with_context(address.to_string());
  if (address.secure() && !tls_options(address, options).configured())
    return Status(Code::kUsage, address.to_string() + ": TLS needs certificates or a file of keys",
                  "name them with ?tls-certificates=DIR or ?tls-psk-file=FILE, or for all regions "
                  "to rmemd");
  if (address.socket_path.empty() && !address.secure() && !options.insecure &&
      address.host != "localhost") {
    // A name might be anybody.
    const auto numeric = transport::resolve(address.host, address.port, false, true);
    if (!numeric || !numeric->front().local())
      return Status(Code::kUsage,
                    address.to_string() +
                        ": plain TCP to another host is neither encrypted nor authenticated",
                    "use rmems:// (TLS), or --insecure if you trust the network in between");
  }
  return std::unique_ptr<RemoteStore>(
      new RemoteStore(std::make_unique<Impl>(reactor, std::move(address), options, listener)));
}

RemoteStore::RemoteStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

RemoteStore::~RemoteStore() { impl_->close(); }

void RemoteStore::open(Opened done) {
  assert(impl_->state == State::kIdle);
  impl_->opened = std::move(done);
  impl_->attempt();
}

void RemoteStore::resume(const std::optional<WriterClaim>& claim) {
  assert(impl_->state == State::kIdle && impl_->options.expected);
  impl_->held = claim;
  if (impl_->held) impl_->held->take_over = false;
  impl_->attempt();
}

void RemoteStore::claim(const WriterClaim& claim, Finished done) {
  assert(!impl_->claiming);
  if (impl_->state != State::kUp)
    return done(Status(Code::kUnreachable, address().to_string() + ": not connected", {}, EAGAIN));
  impl_->claiming = std::move(done);
  impl_->send_claim(impl_->bulk, claim);
}

std::uint64_t RemoteStore::claim_generation() const {
  return impl_->held ? impl_->held->generation : 0;
}

void RemoteStore::release(Finished done) {
  if (impl_->held && impl_->state == State::kUp) {
    impl_->releasing = std::move(done);
    return impl_->send_release();
  }
  const bool claimed = impl_->held && impl_->state != State::kFailed;
  const std::string cause = impl_->reason.cause();
  close();
  done(claimed ? Status(Code::kUnreachable,
                        address().to_string() + ": the claim could not be given back: " + cause,
                        "the next writer has to use --take-over", EAGAIN)
               : Status());
}

void RemoteStore::close() { impl_->close(); }

RemoteStore::State RemoteStore::state() const { return impl_->state; }

const Status& RemoteStore::reason() const { return impl_->reason; }

const RemoteStore::Counters& RemoteStore::counters() const {
  impl_->counters.checksum_errors = impl_->checksum_errors_before;
  impl_->counters.bytes_saved = impl_->bytes_saved_before;
  impl_->each_lane([this](const Impl::Lane& lane) {
    if (!lane.link) return;
    impl_->counters.checksum_errors += lane.link->checksum_errors();
    impl_->counters.bytes_saved += lane.link->bytes_saved();
  });
  return impl_->counters;
}

const RemoteAddress& RemoteStore::address() const { return impl_->address; }

bool RemoteStore::checksummed() const { return impl_->bulk.link && impl_->bulk.link->checksums(); }

unsigned RemoteStore::lanes() const {
  unsigned ready = 0;
  impl_->each_lane([&ready](const Impl::Lane& lane) { ready += lane.ready; });
  return ready;
}

const char* RemoteStore::transport() const {
  return impl_->bulk.ready ? impl_->bulk.link->transport() : "";
}

std::chrono::nanoseconds RemoteStore::crypto_time() const {
  std::chrono::nanoseconds time{};
  impl_->each_lane([&time](const Impl::Lane& lane) {
    if (lane.ready) time += lane.link->crypto_time();
  });
  return time;
}

const Geometry& RemoteStore::geometry() const { return impl_->geometry; }

void RemoteStore::read(std::uint64_t offset, std::span<std::byte> into, Done done,
                       Urgency urgency) {
  impl_->start(Type::kRead, offset, into.size(), into.data(), done, urgency);
}

void RemoteStore::receive(std::uint64_t offset, std::uint64_t length, Receiver& receiver, void* ctx,
                          Done done, Urgency urgency) {
  impl_->start(Type::kRead, offset, length, nullptr, done, urgency, &receiver, ctx);
}

bool RemoteStore::can_receive(std::uint64_t length) const {
  if (impl_->state != State::kUp) return false;
  bool all = true;
  impl_->each_lane([&](const Impl::Lane& lane) {
    all = all && (!lane.ready || lane.link->can_receive(length));
  });
  return all;
}

bool RemoteStore::overtakes() const {
  return impl_->state == State::kUp && (impl_->pages.ready || impl_->bulk.length == 0);
}

std::chrono::microseconds RemoteStore::round_trip() const {
  if (impl_->state != State::kUp) return {};
  return (impl_->pages.ready ? impl_->pages : impl_->bulk).link->round_trip();
}

void RemoteStore::set_asker(Asker* asker, std::uint64_t longest, bool receives) {
  if (asker == impl_->asker) return;
  if (impl_->pages.link) impl_->pages.link->take_back();
  impl_->asker = asker;
  impl_->longest_asked = longest;
  impl_->asker_receives = receives;
  impl_->lend();
}

void RemoteStore::take_answers(std::uint32_t lane) {
  if (impl_->pages.link) impl_->pages.link->take_answers(lane);
}

void RemoteStore::write(std::uint64_t offset, std::span<const std::byte> from, Done done) {
  impl_->start(Type::kWrite, offset, from.size(), const_cast<std::byte*>(from.data()), done);
}

void RemoteStore::send(std::uint64_t offset, std::uint64_t length, Sender& sender, Done done) {
  impl_->start(Type::kWrite, offset, length, nullptr, done, Urgency::kBulk, nullptr, nullptr,
               &sender);
}

bool RemoteStore::can_send(std::uint64_t length) const {
  if (impl_->state != State::kUp || !impl_->bulk.link->can_send(length)) return false;
  return std::all_of(impl_->sides.begin(), impl_->sides.end(), [length](const Impl::Lane& side) {
    return !side.ready || side.link->can_send(length);
  });
}

void RemoteStore::zero(std::uint64_t offset, std::uint64_t length, Done done) {
  impl_->start(Type::kZero, offset, length, nullptr, done);
}

void RemoteStore::flush(Done done) { impl_->start(Type::kFlush, 0, 0, nullptr, done); }

void RemoteStore::flush_behind(Done done) {
  impl_->start(Type::kFlush, 0, 0, nullptr, done, Urgency::kBulk, nullptr, nullptr, nullptr,
               wire::flag::kBehind);
}

bool RemoteStore::can_flush_behind() const {
  // Nothing orders the lanes among each other.
  return impl_->state == State::kUp && impl_->bulk.link->flushes_behind() && !impl_->shares();
}

}  // namespace rmem::store
