// SPDX-License-Identifier: MIT
#include "transport/tls_connection.hh"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <utility>

#include "base/log.hh"
#include "transport/ktls.hh"

namespace rmem::transport {
namespace {

constexpr std::size_t kRecord = 16 << 10;         // the most that one carries
constexpr std::size_t kSendAtOnce = 128 << 10;    // made into records by one send()
constexpr std::size_t kReceiveAtOnce = 64 << 10;  // of records, asked of the connection below

const log::Source kLog("tls");

// The kernel has taken one key of a connection and not the other: not tried again.
std::atomic<bool> kernel_broken{false};

using Clock = std::chrono::steady_clock;

}  // namespace

Result<std::unique_ptr<TlsConnection>> TlsConnection::create(
    Reactor& reactor, std::shared_ptr<const TlsCredentials> credentials,
    std::unique_ptr<Connection> below, const std::string& host) {
  std::unique_ptr<TlsConnection> made(
      new TlsConnection(reactor, std::move(credentials), std::move(below), host));
  if (const Status s = made->prepare(); !s.ok()) return s;
  return made;
}

TlsConnection::TlsConnection(Reactor& reactor, std::shared_ptr<const TlsCredentials> credentials,
                             std::unique_ptr<Connection> below, const std::string& host)
    : credentials_(std::move(credentials)),
      below_(std::move(below)),
      host_(host),
      turn_(reactor, [this] { report(); }) {}

Status TlsConnection::prepare() {
  // New keys would be records that the kernel does not understand, as would tickets be.
  Status begun = credentials_->begin(
      session_, unsigned{GNUTLS_NONBLOCK} | GNUTLS_NO_SIGNAL | GNUTLS_NO_AUTO_REKEY);
  if (!begun.ok()) return begun;
  gnutls_transport_set_ptr(session_, this);
  gnutls_transport_set_vec_push_function(session_, push);
  gnutls_transport_set_pull_function(session_, pull);

  demands_.make(session_, credentials_->side(), host_);
  below_->attach(*this);
  return Status();
}

TlsConnection::~TlsConnection() {
  if (in_kernel_) {
    ktls_close_notify(below_->socket());
  } else if (session_ != nullptr && !done_ && failure_.ok() && !ended_) {
    gnutls_bye(session_, GNUTLS_SHUT_WR);
    (void)flush();
  }
  if (session_ != nullptr) gnutls_deinit(session_);
}

// --- the handshake -------------------------------------------------------------

void TlsConnection::shake_hands(Done done) {
  done_ = std::move(done);
  advance();
}

void TlsConnection::advance() {
  const int result = gnutls_handshake(session_);
  const bool flushed = flush();
  if (result == GNUTLS_E_SUCCESS && flushed && failure_.ok()) return shaken();
  const bool waits = result == GNUTLS_E_SUCCESS || !gnutls_error_is_fatal(result);
  if (waits && failure_.ok()) return below_->watch(result != GNUTLS_E_SUCCESS, !flushed);
  if (!failure_.ok()) return hands_off(failure_);
  failure_ = refusal(result);
  // So that the other knows, too. A full socket must do without.
  gnutls_alert_send_appropriate(session_, result);
  (void)flush();
  hands_off(failure_);
}

void TlsConnection::hands_off(const Status& status) {
  below_->watch(false, false);
  const Done done = std::move(done_);  // which may destroy this
  done_ = nullptr;
  done(status);
}

void TlsConnection::shaken() {
  identities_ = tls_identities(session_);
  const auto wish = credentials_->kernel();
  std::string why = "it has failed before";
  auto outcome = KtlsOutcome::kNotThere;
  if (wish == TlsOptions::Kernel::kOff) {
    why.clear();
  } else if (below_->socket() < 0 || gnutls_record_check_pending(session_) > 0) {
    why = "not over " + std::string(below_->kind());
  } else if (!kernel_broken) {
    outcome = ktls_install(below_->socket(), session_, why);
  }
  if (outcome == KtlsOutcome::kBroken) kernel_broken = true;
  if (outcome == KtlsOutcome::kBroken ||
      (outcome == KtlsOutcome::kNotThere && wish == TlsOptions::Kernel::kRequired)) {
    failure_ = Status(Code::kFailed, below_->peer() + ": TLS in the kernel: " + why,
                      "load the module tls, or allow user space with --ktls auto", EOPNOTSUPP);
    return hands_off(failure_);
  }
  // Of what has come already, Linux 6.1 says nothing until somebody receives.
  in_kernel_ = look_once_ = outcome == KtlsOutcome::kInstalled;
  crypto_time_ = {};
  if (!in_kernel_) {
    if (!why.empty()) kLog.debug("{}: in user space: {}", below_->peer(), why);
    in_.resize(kReceiveAtOnce);
  }
  hands_off(Status());
}

// --- GnuTLS and the connection below ---------------------------------------------

ssize_t TlsConnection::push(gnutls_transport_ptr_t self, const giovec_t* buffers, int count) {
  auto& me = *static_cast<TlsConnection*>(self);
  ssize_t total = 0;
  for (int i = 0; i < count; ++i) {
    const auto* from = static_cast<const std::uint8_t*>(buffers[i].iov_base);
    me.out_.insert(me.out_.end(), from, from + buffers[i].iov_len);
    total += static_cast<ssize_t>(buffers[i].iov_len);
  }
  return total;
}

ssize_t TlsConnection::pull(gnutls_transport_ptr_t self, void* into, size_t length) {
  auto& me = *static_cast<TlsConnection*>(self);
  me.starved_ = false;
  const auto from_below = [&me](void* place, std::size_t room) {
    const iovec space = {place, room};
    const auto began = Clock::now();
    const IoResult got = me.below_->receive({&space, 1});
    me.crypto_time_ -= Clock::now() - began;
    if (got.bytes > 0) return static_cast<ssize_t>(got.bytes);
    me.starved_ = got.err == EAGAIN;
    me.ended_ = me.ended_ || !me.starved_;
    if (got.err == 0) return ssize_t{0};
    gnutls_transport_set_errno(me.session_, got.err);
    return ssize_t{-1};
  };
  // What is read beyond the handshake could not be given to the kernel.
  if (me.in_.empty()) return from_below(into, length);
  if (me.in_at_ == me.in_end_) {
    const ssize_t got = from_below(me.in_.data(), me.in_.size());
    if (got <= 0) return got;
    me.in_at_ = 0;
    me.in_end_ = static_cast<std::size_t>(got);
  }
  const std::size_t count = std::min(length, me.in_end_ - me.in_at_);
  std::copy_n(me.in_.data() + me.in_at_, count, static_cast<std::uint8_t*>(into));
  me.in_at_ += count;
  return static_cast<ssize_t>(count);
}

// Whether everything has gone. What fails is kept in failure_.
bool TlsConnection::flush() {
  while (out_sent_ < out_.size()) {
    const iovec rest = {out_.data() + out_sent_, out_.size() - out_sent_};
    const IoResult sent = below_->send({&rest, 1});
    if (sent.err == EAGAIN) return false;
    if (sent.err != 0) {
      if (failure_.ok())
        failure_ =
            Status(Code::kUnreachable, below_->peer() + " closed the connection", {}, sent.err);
      return false;
    }
    out_sent_ += sent.bytes;
  }
  out_.clear();
  out_sent_ = 0;
  return true;
}

void TlsConnection::on_readable() {
  if (done_) return advance();
  handler_->on_readable();
}

void TlsConnection::on_writable() {
  if (done_) return advance();
  if (in_kernel_) return handler_->on_writable();
  if (!flush() && failure_.ok()) return;
  update_watch();
  if (writing_) handler_->on_writable();
}

void TlsConnection::on_hangup() {
  if (!done_) return handler_ != nullptr ? handler_->on_hangup() : void();
  failure_ = refusal(GNUTLS_E_PREMATURE_TERMINATION);
  hands_off(failure_);
}

// --- plain bytes -----------------------------------------------------------------

void TlsConnection::attach(Connection::Handler& handler) { handler_ = &handler; }

void TlsConnection::watch(bool readable, bool writable) {
  reading_ = readable;
  writing_ = writable;
  ending_ = false;
  update_watch();
}

void TlsConnection::watch_end(bool writable) {
  reading_ = false;
  writing_ = writable;
  ending_ = true;
  update_watch();
}

void TlsConnection::update_watch() {
  const bool write = writing_ || out_sent_ < out_.size();
  if (ending_)
    below_->watch_end(write);
  else
    below_->watch(reading_, write);
  if (reading_ && (look_once_ || !in_kernel_)) turn_.schedule();
}

// What has come already, nobody below will report.
void TlsConnection::report() {
  if (!reading_) return;
  if (in_kernel_) {
    if (!std::exchange(look_once_, false)) return;
  } else {
    if (in_at_ == in_end_ && gnutls_record_check_pending(session_) == 0) return;
    turn_.schedule();
  }
  handler_->on_readable();  // which may destroy this
}

bool TlsConnection::worn() const {
  // Clients renew; a server insists when one has not.
  const unsigned patience = credentials_->side() == TlsSide::kServer ? 2 : 1;
  return (in_kernel_ ? ktls_records(below_->socket()) : records_) >=
         patience * credentials_->records();
}

IoResult TlsConnection::receive(std::span<const iovec> buffers) {
  if (!failure_.ok()) return {0, failure_.err()};
  if (!in_kernel_) return receive_record(buffers);
  for (;;) {
    const IoResult got = below_->receive(buffers);
    if (got.err != EIO) return got;
    const KtlsRecord record = ktls_receive_record(below_->socket());
    switch (record.kind) {
      case KtlsRecord::Kind::kIgnored:
        continue;
      case KtlsRecord::Kind::kNone:
        return got;
      case KtlsRecord::Kind::kClosed:
        return {};
      case KtlsRecord::Kind::kAlert:
        failure_ = Status(Code::kPermission, peer() + " has refused us: " + record.text,
                          "has it our certificate or key, and is it valid? See its log", EACCES);
        return {0, EACCES};
      case KtlsRecord::Kind::kOther:
        failure_ = Status(Code::kFailed, peer() + ": TLS: " + record.text, {}, EPROTO);
        return {0, EPROTO};
    }
  }
}

IoResult TlsConnection::receive_record(std::span<const iovec> buffers) {
  const auto began = Clock::now();
  IoResult result;
  for (const iovec& buffer : buffers) {
    std::size_t filled = 0;
    while (filled < buffer.iov_len) {
      const ssize_t got = gnutls_record_recv(
          session_, static_cast<std::uint8_t*>(buffer.iov_base) + filled, buffer.iov_len - filled);
      // Something that was not data.
      if ((got == GNUTLS_E_AGAIN || got == GNUTLS_E_INTERRUPTED) && !starved_) continue;
      if (got <= 0) {
        if (result.bytes == 0) result = failed(static_cast<int>(got));
        crypto_time_ += Clock::now() - began;
        return result;
      }
      ++records_;  // or a part of one
      filled += static_cast<std::size_t>(got);
      result.bytes += static_cast<std::size_t>(got);
      // The rest of the buffers is for what is there, not worth another look below.
      if (in_at_ == in_end_ && gnutls_record_check_pending(session_) == 0) {
        crypto_time_ += Clock::now() - began;
        return result;
      }
    }
  }
  if (reading_) turn_.schedule();
  crypto_time_ += Clock::now() - began;
  return result;
}

IoResult TlsConnection::failed(int result) {
  switch (result) {
    case GNUTLS_E_AGAIN:
    case GNUTLS_E_INTERRUPTED:
      return {0, EAGAIN};
    case 0:
    case GNUTLS_E_PREMATURE_TERMINATION:
      return {};
    case GNUTLS_E_PULL_ERROR:
      return {0, ECONNRESET};
    default:
      failure_ = refusal(result);
      if (result == GNUTLS_E_DECRYPTION_FAILED)
        failure_ =
            Status(Code::kUnreachable, "data between us and " + peer() + " were damaged on the way",
                   {}, EBADMSG);
      return {0, failure_.err()};
  }
}

IoResult TlsConnection::send(std::span<const iovec> buffers, bool more) {
  if (!failure_.ok()) return {0, failure_.err()};
  if (in_kernel_) return below_->send(buffers, more);
  IoResult result;
  // What was made into records is on its way: it must not be offered again.
  if (flush()) {
    const auto began = Clock::now();
    for (const iovec& buffer : buffers) {
      std::size_t taken = 0;
      while (taken < buffer.iov_len && result.bytes < kSendAtOnce && failure_.ok()) {
        const std::size_t count = std::min(buffer.iov_len - taken, kRecord);
        const ssize_t made = gnutls_record_send(
            session_, static_cast<const std::uint8_t*>(buffer.iov_base) + taken, count);
        if (made < 0) {
          failure_ = refusal(static_cast<int>(made));
          break;
        }
        ++records_;
        taken += static_cast<std::size_t>(made);
        result.bytes += static_cast<std::size_t>(made);
      }
      if (taken < buffer.iov_len) break;
    }
    crypto_time_ += Clock::now() - began;
    (void)flush();
  }
  if (result.bytes > 0) {
    if (out_sent_ < out_.size()) update_watch();
    return result;
  }
  return {0, failure_.ok() ? EAGAIN : failure_.err()};
}

}  // namespace rmem::transport
