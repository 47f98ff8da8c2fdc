// SPDX-License-Identifier: MIT
#include "transport/quic_link.hh"

#include <gnutls/crypto.h>
#include <ngtcp2/ngtcp2_crypto_gnutls.h>

#include <algorithm>
#include <cerrno>

namespace rmem::transport {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kOut = 8 << 20;       // unacknowledged, of a link: 1 Gbit/s over 60 ms
constexpr std::uint64_t kWindow = 8 << 20;  // received and not yet read, at most
constexpr std::uint64_t kFirstWindow = 1 << 20;
constexpr std::uint64_t kMessages = 512;  // received or begun, and not yet read, at most
// What may go at once (RFC 9002, section 7.7). So much is not paced if there is no more: a page
// would wait for the rate of the few pages before it.
constexpr std::size_t kBurst = 14'720;
constexpr std::size_t kMostAtOnce = 256 << 10;  // before others have their turn
constexpr auto kLinger = 5s;                    // without an acknowledgement
constexpr std::uint64_t kNoError = 0;           // of an application: all is well
constexpr std::uint64_t kGaveUp = 1;            // not everything has been acknowledged

ngtcp2_addr addr_of(const SocketAddress& address) {
  return {reinterpret_cast<ngtcp2_sockaddr*>(const_cast<sockaddr_storage*>(&address.storage)),
          address.length};
}

SocketAddress address_of(const ngtcp2_addr& from) {
  SocketAddress address;
  address.length = from.addrlen;
  std::memcpy(&address.storage, from.addr, from.addrlen);
  return address;
}

bool same_address(const SocketAddress& one, const SocketAddress& other) {
  return one.length == other.length && std::memcmp(&one.storage, &other.storage, one.length) == 0;
}

ngtcp2_path path_of(const SocketAddress& local, const SocketAddress& remote) {
  return {addr_of(local), addr_of(remote), nullptr};
}

void fill_random(std::uint8_t* into, std::size_t bytes) {
  gnutls_rnd(GNUTLS_RND_RANDOM, into, bytes);
}

ngtcp2_cid random_id() {
  ngtcp2_cid id;
  id.datalen = QuicLink::kIdLength;
  fill_random(id.data, id.datalen);
  return id;
}

ngtcp2_cc_algo algorithm(TlsOptions::Congestion congestion) {
  switch (congestion) {
    case TlsOptions::Congestion::kCubic:
      return NGTCP2_CC_ALGO_CUBIC;
    case TlsOptions::Congestion::kReno:
      return NGTCP2_CC_ALGO_RENO;
    case TlsOptions::Congestion::kBbr:
      break;
  }
  return NGTCP2_CC_ALGO_BBR;
}

Status quic_error(const char* what, int result) {
  return Status(Code::kFailed, std::string("QUIC: ") + what + ": " + ngtcp2_strerror(result), {},
                EPROTO);
}

}  // namespace

// What ngtcp2 calls.
struct QuicCallbacks {
  static QuicLink& link(void* user) { return *static_cast<QuicLink*>(user); }

  static int on_shaken(ngtcp2_conn*, void* user) {
    QuicLink& me = link(user);
    if (me.client()) {
      std::int64_t id = -1;
      if (ngtcp2_conn_open_bidi_stream(me.conn_, &id, nullptr) != 0)
        return NGTCP2_ERR_CALLBACK_FAILURE;
      me.stream_ = id;
      const std::uint8_t kind = 0;
      me.out_.append({&kind, 1});
    }
    me.shaking_ = false;
    me.identities_ = tls_identities(me.session_);
    return 0;
  }
  // By the server, once it has our last word of the handshake, which goes before or with our first
  // of what follows. ngtcp2 1.11 would go on to say that word with what it has thrown away by now.
  static int on_confirmed(ngtcp2_conn*, void* user) {
    return link(user).spoken_ ? 0 : NGTCP2_ERR_CALLBACK_FAILURE;
  }
  static int on_data(ngtcp2_conn*, std::uint32_t flags, std::int64_t id, std::uint64_t,
                     const std::uint8_t* data, std::size_t length, void* user, void*) {
    const bool fin = (flags & NGTCP2_STREAM_DATA_FLAG_FIN) != 0;
    return link(user).received(id, {data, length}, fin) ? 0 : NGTCP2_ERR_CALLBACK_FAILURE;
  }
  static int on_acked(ngtcp2_conn*, std::int64_t id, std::uint64_t offset, std::uint64_t length,
                      void* user, void*) {
    link(user).acked(id, offset + length);
    return 0;
  }
  static int on_stream_open(ngtcp2_conn*, std::int64_t id, void* user) {
    if (ngtcp2_is_bidi_stream(id) != 0) link(user).stream_ = id;
    return 0;
  }
  static int on_stream_close(ngtcp2_conn*, std::uint32_t, std::int64_t id, std::uint64_t,
                             void* user, void*) {
    link(user).stream_closed(id);
    return 0;
  }
  static int on_stream_reset(ngtcp2_conn*, std::int64_t, std::uint64_t, std::uint64_t, void*,
                             void*) {
    return NGTCP2_ERR_CALLBACK_FAILURE;  // nobody of us does that
  }
  static int on_reset(ngtcp2_conn*, const ngtcp2_pkt_stateless_reset*, void* user) {
    link(user).forgotten_ = true;
    return 0;
  }
  static void fill(std::uint8_t* into, std::size_t length, const ngtcp2_rand_ctx*) {
    fill_random(into, length);
  }
  static int new_id(ngtcp2_conn*, ngtcp2_cid* id, std::uint8_t* token, std::size_t length,
                    void* user) {
    QuicLink& me = link(user);
    id->datalen = length;
    fill_random(id->data, length);
    me.port_.reset_token(*id, token);
    me.port_.add(*id, me);
    me.ids_.push_back(*id);
    return 0;
  }
  static int remove_id(ngtcp2_conn*, const ngtcp2_cid* id, void* user) {
    QuicLink& me = link(user);
    me.port_.remove(*id);
    std::erase_if(me.ids_, [id](const ngtcp2_cid& one) { return ngtcp2_cid_eq(&one, id) != 0; });
    return 0;
  }
  static ngtcp2_conn* conn(ngtcp2_crypto_conn_ref* ref) { return link(ref->user_data).conn_; }

  static ngtcp2_callbacks all(bool client) {
    ngtcp2_callbacks c = {};
    if (client) {
      c.client_initial = ngtcp2_crypto_client_initial_cb;
      c.recv_retry = ngtcp2_crypto_recv_retry_cb;
      c.handshake_confirmed = on_confirmed;
    } else {
      c.recv_client_initial = ngtcp2_crypto_recv_client_initial_cb;
    }
    c.recv_crypto_data = ngtcp2_crypto_recv_crypto_data_cb;
    c.handshake_completed = on_shaken;
    c.decrypt = ngtcp2_crypto_decrypt_cb;
    c.hp_mask = ngtcp2_crypto_hp_mask_cb;
    c.recv_stream_data = on_data;
    c.acked_stream_data_offset = on_acked;
    c.stream_open = on_stream_open;
    c.stream_close = on_stream_close;
    c.stream_reset = on_stream_reset;
    c.recv_stateless_reset = on_reset;
    c.rand = fill;
    c.get_new_connection_id = new_id;
    c.remove_connection_id = remove_id;
    c.update_key = ngtcp2_crypto_update_key_cb;
    c.delete_crypto_aead_ctx = ngtcp2_crypto_delete_crypto_aead_ctx_cb;
    c.delete_crypto_cipher_ctx = ngtcp2_crypto_delete_crypto_cipher_ctx_cb;
    c.get_path_challenge_data = ngtcp2_crypto_get_path_challenge_data_cb;
    c.version_negotiation = ngtcp2_crypto_version_negotiation_cb;
    return c;
  }
};

Result<std::shared_ptr<QuicLink>> QuicLink::create(Reactor& reactor, Port& port,
                                                   const Start& start) {
  std::shared_ptr<QuicLink> made(new QuicLink(reactor, port, start));
  if (Status s = made->start(start); !s.ok()) {
    made->dead_ = true;
    return s;
  }
  return made;
}

QuicLink::QuicLink(Reactor& reactor, Port& port, const Start& start)
    : port_(port),
      credentials_(start.credentials),
      remote_(start.remote),
      peer_(start.remote.to_string()),
      host_(start.host),
      timer_(reactor, [this] { on_timer(); }),
      patience_(reactor, [this] { close(kGaveUp); }),
      turn_(reactor, [this] { on_turn(); }) {}

QuicLink::~QuicLink() {
  ngtcp2_conn_del(conn_);
  if (session_ != nullptr) gnutls_deinit(session_);
}

Status QuicLink::start(const Start& start) {
  if (Status s = credentials_->begin(session_, 0, TlsCredentials::Below::kQuic); !s.ok()) return s;
  ref_ = {QuicCallbacks::conn, this};
  gnutls_session_set_ptr(session_, &ref_);
  if ((client() ? ngtcp2_crypto_gnutls_configure_client_session(session_)
                : ngtcp2_crypto_gnutls_configure_server_session(session_)) != 0)
    return Status(Code::kFailed, "QUIC: GnuTLS does not go along");
  demands_.make(session_, credentials_->side(), host_);

  ngtcp2_settings settings;
  ngtcp2_settings_default(&settings);
  settings.initial_ts = quic_now();
  settings.cc_algo = algorithm(credentials_->congestion());
  settings.max_window = settings.max_stream_window = kWindow;
  settings.ack_thresh = 8;
  if (start.handshake > 0ms) settings.handshake_timeout = start.handshake / 1ns;
  ngtcp2_transport_params params;
  ngtcp2_transport_params_default(&params);
  params.initial_max_data = kFirstWindow;
  params.initial_max_stream_data_bidi_local = kFirstWindow;
  params.initial_max_stream_data_bidi_remote = kFirstWindow;
  params.initial_max_stream_data_uni = kLongestMessage;
  params.initial_max_streams_bidi = client() ? 0 : 1;
  params.initial_max_streams_uni = kMessages;
  params.active_connection_id_limit = 7;

  ngtcp2_callbacks callbacks = QuicCallbacks::all(client());
  callbacks.encrypt = start.encrypt;
  const ngtcp2_path path = path_of(start.local, start.remote);
  const Id own = random_id();
  int result = 0;
  if (client()) {
    const Id first = random_id();
    result = ngtcp2_conn_client_new(&conn_, &first, &own, &path, start.version, &callbacks,
                                    &settings, &params, nullptr, this);
  } else {
    params.original_dcid = start.first_id;
    params.original_dcid_present = 1;
    params.retry_scid = start.retried_id;
    params.retry_scid_present = start.retried ? 1 : 0;
    params.stateless_reset_token_present = 1;
    port_.reset_token(own, params.stateless_reset_token);
    result = ngtcp2_conn_server_new(&conn_, &start.client_id, &own, &path, start.version,
                                    &callbacks, &settings, &params, nullptr, this);
  }
  if (result != 0) return quic_error("cannot begin", result);
  ngtcp2_conn_set_tls_native_handle(conn_, session_);
  port_.add(own, *this);
  ids_.push_back(own);
  if (!client()) {
    // Until it has heard of ours, it goes on calling us by the ID that it has thought of.
    const Id& called = start.retried ? start.retried_id : start.first_id;
    port_.add(called, *this);
    ids_.push_back(called);
  }
  kick();
  return Status();
}

// --- packets --------------------------------------------------------------------

void QuicLink::on_packets(const UdpSocket::Batch& batch) {
  const auto self = shared_from_this();
  const ngtcp2_path path = path_of(batch.to, batch.from);
  const ngtcp2_pkt_info info = {batch.ecn};
  for (std::size_t at = 0; at < batch.bytes.size() && !dead_; at += batch.segment) {
    const auto packet = batch.bytes.subspan(at, std::min(batch.segment, batch.bytes.size() - at));
    const bool was_shaking = shaking_;
    const int result =
        ngtcp2_conn_read_pkt(conn_, &path, &info, packet.data(), packet.size(), quic_now());
    if (result != 0) return failed(result);
    heard_ = Reactor::Clock::now();
    if (was_shaking && !shaking_) port_.shaken(*this, Status());
  }
  kick();
}

void QuicLink::on_timer() {
  const auto self = shared_from_this();
  if (const int result = ngtcp2_conn_handle_expiry(conn_, quic_now()); result != 0)
    return failed(result);
  if (Reactor::Clock::now() - heard_ > 300ms) port_.silent(*this);
  flush();
}

void QuicLink::on_writable() {
  if (flush_held()) kick();
}

void QuicLink::on_turn() {
  const auto self = shared_from_this();
  report();
  flush();
}

// Whether nothing is held back any more.
bool QuicLink::flush_held() {
  if (held_bytes_.empty() || dead_) return true;
  held_.bytes = held_bytes_;
  if (port_.send(held_) == EAGAIN) {
    port_.wait_writable();
    return false;
  }
  held_bytes_.clear();
  return true;
}

// Sends a batch, which is empty then. False: not now.
bool QuicLink::put(UdpSocket::Batch& batch) {
  const auto bytes = std::exchange(batch.bytes, {});
  UdpSocket::Batch whole = batch;
  whole.bytes = bytes;
  if (bytes.empty() || port_.send(whole) != EAGAIN) return true;
  held_ = whole;
  held_bytes_.assign(bytes.begin(), bytes.end());
  port_.wait_writable();
  return false;
}

// What goes into a packet next.
struct QuicLink::Piece {
  Turn turn = Turn::kNobody;
  std::int64_t stream = -1;
  std::array<ngtcp2_vec, 2> bytes{};
  std::size_t count = 0;
  bool last = false;  // of its stream
};

void QuicLink::flush() {
  if (dead_ || !flush_held()) return;
  const ngtcp2_tstamp at = quic_now();
  const std::size_t most =
      std::clamp<std::size_t>(ngtcp2_conn_get_send_quantum(conn_), kBurst, kMostAtOnce);
  const auto packets = port_.packets();
  std::size_t written = 0, filled = 0;
  Waits waits{};
  bool begun = false, goes = true;  // begun: a packet, with room for more
  UdpSocket::Batch batch;
  ngtcp2_path_storage path;
  ngtcp2_pkt_info info = {};
  while (goes && (begun || written < most)) {
    const std::size_t longest = ngtcp2_conn_get_path_max_tx_udp_payload_size(conn_);
    if (!begun && packets.size() - filled < longest) {
      goes = put(batch);
      filled = 0;
      continue;
    }
    if (!begun) ngtcp2_path_storage_zero(&path);
    const Piece piece = next_piece(waits);
    std::uint32_t flags = 0;
    if (piece.turn != Turn::kNobody) flags |= NGTCP2_WRITE_STREAM_FLAG_MORE;
    if (piece.last) flags |= NGTCP2_WRITE_STREAM_FLAG_FIN;
    ngtcp2_ssize bytes = -1;
    const ngtcp2_ssize length =
        ngtcp2_conn_writev_stream(conn_, &path.path, &info, packets.data() + filled, longest,
                                  &bytes, flags, piece.stream, piece.bytes.data(), piece.count, at);
    if (length == NGTCP2_ERR_STREAM_DATA_BLOCKED || length == NGTCP2_ERR_STREAM_SHUT_WR ||
        length == NGTCP2_ERR_STREAM_NOT_FOUND) {
      waits[static_cast<std::size_t>(piece.turn)] = true;
      continue;
    }
    if (bytes >= 0) taken(piece, static_cast<std::size_t>(bytes));
    begun = length == NGTCP2_ERR_WRITE_MORE;
    if (begun) continue;
    if (length < 0) return failed(static_cast<int>(length));
    if (length == 0) break;
    const auto size = static_cast<std::size_t>(length);
    const SocketAddress from = address_of(path.path.local), to = address_of(path.path.remote);
    const std::uint8_t* const packet = packets.data() + filled;
    if (!batch.bytes.empty() && (size > batch.segment || info.ecn != batch.ecn ||
                                 !same_address(batch.from, from) || !same_address(batch.to, to)))
      goes = put(batch);
    if (!goes) {
      // Made and not sent: as if it had been lost on the way.
      break;
    }
    if (batch.bytes.empty()) {
      batch.segment = size;
      batch.ecn = static_cast<std::uint8_t>(info.ecn);
      batch.from = from;
      batch.to = to;
      batch.bytes = {packet, size};
    } else {
      batch.bytes = {batch.bytes.data(), batch.bytes.size() + size};
    }
    filled += size;
    written += size;
    if (size < batch.segment) {
      goes = put(batch);
      filled = 0;
    }
  }
  if (goes) put(batch);
  const bool more = out_sent_ < out_.end() || !unsent_.empty();
  if (more || written > kBurst) ngtcp2_conn_update_pkt_tx_time(conn_, at);
  set_timer();
  // Whoever has gone has been heard to the end.
  if (abandoned_ && ((fin_acked_ && outgoing_.empty()) || stream_ < 0)) close(kNoError);
}

QuicLink::Piece QuicLink::next_piece(const Waits& waits) const {
  const auto can = [&waits](Turn turn) { return !waits[static_cast<std::size_t>(turn)]; };
  if (can(Turn::kMessage) && !unsent_.empty()) {
    const Outgoing& one = outgoing_.at(unsent_.front());
    Piece piece{Turn::kMessage, unsent_.front(), {}, 1, true};
    piece.bytes[0] = {const_cast<std::uint8_t*>(one.bytes.data()) + one.sent,
                      one.bytes.size() - one.sent};
    return piece;
  }
  Piece piece{Turn::kStream, stream_};
  if (!can(Turn::kStream) || stream_ < 0) return {};
  std::uint64_t next = out_sent_;
  for (; piece.count < piece.bytes.size() && next < out_.end(); ++piece.count) {
    const auto bytes = out_.at(next);
    piece.bytes[piece.count] = {const_cast<std::uint8_t*>(bytes.data()), bytes.size()};
    next += bytes.size();
  }
  piece.last = abandoned_ && !fin_sent_ && next == out_.end();
  return piece.count > 0 || piece.last ? piece : Piece{};
}

// So much of the piece is in a packet.
void QuicLink::taken(const Piece& piece, std::size_t bytes) {
  spoken_ = true;
  if (piece.turn == Turn::kStream) {
    out_sent_ += bytes;
    if (piece.last && out_sent_ == out_.end()) fin_sent_ = true;
  } else if (piece.turn != Turn::kNobody) {
    Outgoing& message = outgoing_.at(piece.stream);
    message.sent += bytes;
    if (message.sent == message.bytes.size()) unsent_.pop_front();
  }
}

void QuicLink::set_timer() {
  const ngtcp2_tstamp due = ngtcp2_conn_get_expiry(conn_), at = quic_now();
  if (due == UINT64_MAX) return timer_.disarm();
  timer_.arm(due <= at ? 0ns : std::chrono::nanoseconds(due - at));
}

Status QuicLink::move_to(const SocketAddress& local) {
  const ngtcp2_path path = path_of(local, remote_);
  if (const int result = ngtcp2_conn_initiate_immediate_migration(conn_, &path, quic_now());
      result != 0)
    return quic_error("cannot move to another address", result);
  kick();
  return Status();
}

// --- the end ---------------------------------------------------------------------

// ngtcp2 cannot go on.
void QuicLink::failed(int result) {
  if (result == NGTCP2_ERR_DRAINING) {
    if (forgotten_)
      return die(Status(Code::kUnreachable, peer_ + " has been started again", {}, ECONNRESET));
    const ngtcp2_ccerr* const why = ngtcp2_conn_get_ccerr(conn_);
    if (why->type == NGTCP2_CCERR_TYPE_APPLICATION && why->error_code == kNoError) {
      ended_ = true;  // everything had been acknowledged by then
      return die(Status(Code::kUnreachable, peer_ + " closed the connection", {}, EPIPE));
    }
    if (why->type == NGTCP2_CCERR_TYPE_TRANSPORT &&
        (why->error_code & ~std::uint64_t{0xff}) == NGTCP2_CRYPTO_ERROR) {
      return die(Status(
          Code::kPermission, peer_ + " has refused us: " + tls_alert(why->error_code & 0xff),
          client() ? "has it our certificate or key, and is it valid? See its log" : "", EACCES));
    }
    return die(Status(Code::kUnreachable,
                      peer_ + " gave up the connection, error " + std::to_string(why->error_code),
                      {}, ECONNRESET));
  }
  Status status = quic_error(peer_.c_str(), result);
  ngtcp2_ccerr error;
  ngtcp2_ccerr_default(&error);
  if (result == NGTCP2_ERR_CRYPTO) {
    const bool distrusted =
        gnutls_session_get_verify_cert_status(session_) != 0 &&
        gnutls_session_get_verify_cert_status(session_) != static_cast<unsigned>(-1);
    const std::uint8_t alert = ngtcp2_conn_get_tls_alert(conn_);
    int why = GNUTLS_E_RECEIVED_ILLEGAL_PARAMETER;
    if (distrusted) why = GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR;
    if (alert == GNUTLS_A_CERTIFICATE_REQUIRED) why = GNUTLS_E_CERTIFICATE_REQUIRED;
    if (alert == GNUTLS_A_NO_APPLICATION_PROTOCOL) why = GNUTLS_E_NO_APPLICATION_PROTOCOL;
    if (alert == GNUTLS_A_HANDSHAKE_FAILURE) why = GNUTLS_E_NO_CIPHER_SUITES;
    status = tls_refusal(session_, credentials_->side(), why, peer_, host_);
    ngtcp2_ccerr_set_tls_alert(&error, alert, nullptr, 0);
  } else {
    ngtcp2_ccerr_set_liberr(&error, result, nullptr, 0);
  }
  if (result == NGTCP2_ERR_IDLE_CLOSE || result == NGTCP2_ERR_HANDSHAKE_TIMEOUT)
    return die(Status(Code::kUnreachable, peer_ + ": no QUIC handshake in time", {}, ETIMEDOUT));
  if (result != NGTCP2_ERR_DROP_CONN && result != NGTCP2_ERR_CLOSING) say(error);
  die(status);
}

// The last packet.
void QuicLink::say(const ngtcp2_ccerr& error) {
  const auto packets = port_.packets();
  ngtcp2_path_storage path;
  ngtcp2_path_storage_zero(&path);
  ngtcp2_pkt_info info = {};
  const ngtcp2_ssize length = ngtcp2_conn_write_connection_close(
      conn_, &path.path, &info, packets.data(), 1200, &error, quic_now());
  if (length > 0) {
    UdpSocket::Batch batch{address_of(path.path.local),
                           address_of(path.path.remote),
                           0,
                           {packets.data(), static_cast<std::size_t>(length)},
                           static_cast<std::size_t>(length)};
    (void)port_.send(batch);
  }
}

void QuicLink::close(std::uint64_t code) {
  if (dead_) return;
  const auto self = shared_from_this();
  ngtcp2_ccerr error;
  ngtcp2_ccerr_set_application_error(&error, code, nullptr, 0);
  say(error);
  die(Status(Code::kUnreachable, "closed", {}, EPIPE));
}

void QuicLink::die(const Status& status) {
  if (dead_) return;
  const auto self = shared_from_this();
  dead_ = true;
  failure_ = status;
  timer_.disarm();
  patience_.disarm();
  for (const Id& id : std::exchange(ids_, {})) port_.remove(id);
  const bool was_shaking = std::exchange(shaking_, false);
  turn_.schedule();
  Port& port = port_;
  if (was_shaking) port.shaken(*this, status);
  port.dead(*this);
}

void QuicLink::abandon() {
  abandoned_ = true;
  handler_ = nullptr;
  if (dead_) return;
  // What nobody will read must not keep the peer from ending.
  std::size_t bytes = 0;
  for (const auto& [id, message] : incoming_) bytes += message.size();
  for (const auto& message : whole_) bytes += message.size();
  let_more_come(in_.size(), bytes, whole_.size());
  in_.discard(in_.end());
  incoming_.clear();
  whole_.clear();
  patience_.arm(kLinger);
  kick();
}

// --- the streams ---------------------------------------------------------------------

void QuicLink::let_more_come(std::size_t stream_bytes, std::size_t message_bytes,
                             std::size_t messages) {
  if (stream_ >= 0) ngtcp2_conn_extend_max_stream_offset(conn_, stream_, stream_bytes);
  ngtcp2_conn_extend_max_offset(conn_, stream_bytes + message_bytes);
  // Each time that costs a packet.
  read_messages_ += messages;
  if (read_messages_ < kMessages / 4) return;
  ngtcp2_conn_extend_max_streams_uni(conn_, std::exchange(read_messages_, 0));
}

bool QuicLink::received(std::int64_t id, std::span<const std::uint8_t> bytes, bool fin) {
  if (id != stream_) return message_received(id, bytes, fin);
  if (!client() && !in_begun_ && !bytes.empty()) {
    if (bytes[0] != 0) return false;
    in_begun_ = true;
    bytes = bytes.subspan(1);
  }
  if (abandoned_)
    let_more_come(bytes.size(), 0, 0);
  else
    in_.append(bytes);
  if (fin) ended_ = true;
  return true;
}

bool QuicLink::message_received(std::int64_t id, std::span<const std::uint8_t> bytes, bool fin) {
  if (abandoned_) {
    let_more_come(0, bytes.size(), fin ? 1 : 0);
    return true;
  }
  auto& message = incoming_[id];
  const auto* const data = reinterpret_cast<const std::byte*>(bytes.data());
  message.insert(message.end(), data, data + bytes.size());
  if (!fin) return true;
  if (message.empty()) return false;
  whole_.push_back(std::move(message));
  incoming_.erase(id);
  return true;
}

void QuicLink::acked(std::int64_t id, std::uint64_t end) {
  if (id == stream_) {
    out_.discard(end);
    if (fin_sent_ && end == out_.end()) fin_acked_ = true;
  }
  if (abandoned_) patience_.arm(kLinger);
}

// A message has arrived, of us or of the peer; or the peer does not want it.
void QuicLink::stream_closed(std::int64_t id) {
  if (id == stream_) fin_acked_ = true;
  const auto one = outgoing_.find(id);
  if (one == outgoing_.end()) return;
  outgoing_bytes_ -= one->second.bytes.size();
  if (one->second.sent < one->second.bytes.size()) std::erase(unsent_, id);
  outgoing_.erase(one);
}

bool QuicLink::readable() const { return in_.size() > 0 || !whole_.empty() || ended_ || dead_; }

bool QuicLink::writable() const {
  return dead_ || (stream_ >= 0 && out_.size() + outgoing_bytes_ < kOut);
}

void QuicLink::watch(bool readable, bool writable, bool end) {
  reading_ = readable;
  writing_ = writable;
  ending_ = end;
  kick();
}

// Level-triggered: again in each turn for as long as something can be done about it.
void QuicLink::report() {
  const auto wants_to_read = [this] { return reading_ && readable(); };
  const auto wants_to_write = [this] { return writing_ && writable(); };
  if (handler_ != nullptr && wants_to_read()) handler_->on_readable();
  if (handler_ != nullptr && wants_to_write()) handler_->on_writable();
  if (handler_ != nullptr && !reading_ && !writing_ && (dead_ || (ending_ && ended_)))
    return handler_->on_hangup();
  if (handler_ != nullptr && (wants_to_read() || wants_to_write())) turn_.schedule();
}

IoResult QuicLink::receive(std::span<const iovec> buffers) {
  std::size_t moved = 0;
  for (const iovec& buffer : buffers) {
    for (std::size_t at = 0; at < buffer.iov_len && in_.size() > 0;) {
      auto piece = in_.at(in_.begin());
      piece = piece.first(std::min(piece.size(), buffer.iov_len - at));
      std::memcpy(static_cast<std::uint8_t*>(buffer.iov_base) + at, piece.data(), piece.size());
      in_.discard(in_.begin() + piece.size());
      at += piece.size();
      moved += piece.size();
    }
  }
  if (moved > 0) {
    if (!dead_) {
      ngtcp2_conn_extend_max_stream_offset(conn_, stream_, moved);
      ngtcp2_conn_extend_max_offset(conn_, moved);
      kick();
    }
    return {moved, 0};
  }
  if (ended_) return {0, 0};
  return {0, dead_ ? ECONNRESET : EAGAIN};
}

IoResult QuicLink::send(std::span<const iovec> buffers, bool more) {
  if (dead_) return {0, EPIPE};
  if (!writable()) return {0, EAGAIN};
  std::size_t moved = 0;
  for (const iovec& buffer : buffers) {
    const std::size_t room = kOut - std::min(out_.size() + outgoing_bytes_, kOut);
    const std::size_t part = std::min(buffer.iov_len, room);
    out_.append({static_cast<const std::uint8_t*>(buffer.iov_base), part});
    moved += part;
    if (part < buffer.iov_len) break;
  }
  if (!more) kick();
  return {moved, 0};
}

int QuicLink::send_message(std::span<const iovec> message) {
  if (dead_) return EPIPE;
  if (!writable()) return EAGAIN;
  const std::size_t size = total(message);
  std::int64_t id = -1;
  if (size == 0 || size > kLongestMessage || ngtcp2_conn_open_uni_stream(conn_, &id, nullptr) != 0)
    return EMSGSIZE;
  Outgoing& one = outgoing_[id];
  one.bytes.reserve(size);
  for (const iovec& part : message) {
    const auto* const data = static_cast<const std::uint8_t*>(part.iov_base);
    one.bytes.insert(one.bytes.end(), data, data + part.iov_len);
  }
  outgoing_bytes_ += size;
  unsent_.push_back(id);
  kick();
  return 0;
}

bool QuicLink::receive_message(std::vector<std::byte>& message) {
  if (whole_.empty()) return false;
  message = std::move(whole_.front());
  whole_.pop_front();
  if (!dead_) {
    let_more_come(0, message.size(), 1);
    kick();
  }
  return true;
}

std::chrono::microseconds QuicLink::round_trip() const {
  if (dead_) return {};
  ngtcp2_conn_info info;
  ngtcp2_conn_get_conn_info(conn_, &info);
  if (info.min_rtt == UINT64_MAX) return {};
  return std::chrono::duration_cast<std::chrono::microseconds>(
      std::chrono::nanoseconds(info.min_rtt));
}

}  // namespace rmem::transport
