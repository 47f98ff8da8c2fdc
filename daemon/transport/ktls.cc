// SPDX-License-Identifier: MIT
#include "transport/ktls.hh"

#include <linux/tcp.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "transport/tls_peer.hh"

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

namespace rmem::transport {
namespace {

// RFC 8446, section 5.1 and 4.
constexpr unsigned char kAlert = 21;
constexpr unsigned char kHandshake = 22;
constexpr unsigned char kCloseNotify = 0;
constexpr unsigned char kNewSessionTicket = 4;
constexpr unsigned char kKeyUpdate = 24;

// One direction of a session, in the kernel's words.
template <class Info, unsigned short kCipher>
bool install(int socket, int direction, const gnutls_datum_t& key, const gnutls_datum_t& iv,
             const unsigned char* sequence) {
  Info info = {};
  info.info.version = TLS_1_3_VERSION;
  info.info.cipher_type = kCipher;
  // For GCM the kernel calls the first four bytes of the nonce the salt; ChaCha20 has none.
  const std::size_t salt = sizeof info.salt;
  if (key.size != sizeof info.key || iv.size != salt + sizeof info.iv) {
    errno = EINVAL;
    return false;
  }
  std::memcpy(info.key, key.data, sizeof info.key);
  std::memcpy(info.salt, iv.data, salt);
  std::memcpy(info.iv, iv.data + salt, sizeof info.iv);
  std::memcpy(info.rec_seq, sequence, sizeof info.rec_seq);
  const int result = ::setsockopt(socket, SOL_TLS, direction, &info, sizeof info);
  const int err = errno;
  gnutls_memset(&info, 0, sizeof info);
  errno = err;
  return result == 0;
}

bool install(int socket, int direction, gnutls_session_t session) {
  gnutls_datum_t mac, iv, key;
  unsigned char sequence[8];
  if (gnutls_record_get_state(session, direction == TLS_RX, &mac, &iv, &key, sequence) != 0) {
    errno = EOPNOTSUPP;
    return false;
  }
  switch (gnutls_cipher_get(session)) {
    case GNUTLS_CIPHER_AES_128_GCM:
      return install<tls12_crypto_info_aes_gcm_128, TLS_CIPHER_AES_GCM_128>(socket, direction, key,
                                                                            iv, sequence);
    case GNUTLS_CIPHER_AES_256_GCM:
      return install<tls12_crypto_info_aes_gcm_256, TLS_CIPHER_AES_GCM_256>(socket, direction, key,
                                                                            iv, sequence);
    case GNUTLS_CIPHER_CHACHA20_POLY1305:
      return install<tls12_crypto_info_chacha20_poly1305, TLS_CIPHER_CHACHA20_POLY1305>(
          socket, direction, key, iv, sequence);
    default:
      errno = EOPNOTSUPP;
      return false;
  }
}

template <class Info>
std::uint64_t records(int socket, int direction) {
  Info info = {};
  socklen_t length = sizeof info;
  if (::getsockopt(socket, SOL_TLS, direction, &info, &length) != 0) return 0;
  std::uint64_t count = 0;
  for (const unsigned char byte : info.rec_seq) count = count << 8 | byte;
  gnutls_memset(&info, 0, sizeof info);
  return count;
}

// One record, with room for its type.
struct Record {
  Record(unsigned char* bytes, std::size_t length) : buffer{bytes, length} {
    message.msg_iov = &buffer;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
  }
  iovec buffer;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(unsigned char))] = {};
  msghdr message = {};
};

}  // namespace

KtlsOutcome ktls_install(int socket, gnutls_session_t session, std::string& why) {
  // Without it the socket would send what it is given, as it is: every step counts.
  if (::setsockopt(socket, IPPROTO_TCP, TCP_ULP, "tls", sizeof "tls") != 0) {
    why = errno == ENOENT ? "the kernel has no module tls" : std::strerror(errno);
    return KtlsOutcome::kNotThere;
  }
  if (!install(socket, TLS_RX, session)) {
    why = std::string("receiving: ") + std::strerror(errno);
    return KtlsOutcome::kNotThere;
  }
  if (!install(socket, TLS_TX, session)) {
    why = std::string("sending: ") + std::strerror(errno);
    return KtlsOutcome::kBroken;
  }
  return KtlsOutcome::kInstalled;
}

KtlsRecord ktls_receive_record(int socket) {
  std::array<unsigned char, 4096> bytes;
  Record record(bytes.data(), bytes.size());
  const ssize_t count = ::recvmsg(socket, &record.message, MSG_DONTWAIT);
  if (count < 0) return {};
  const cmsghdr* const header = CMSG_FIRSTHDR(&record.message);
  if (header == nullptr || header->cmsg_level != SOL_TLS ||
      header->cmsg_type != TLS_GET_RECORD_TYPE || count == 0)
    return {KtlsRecord::Kind::kOther, "a record of no known kind"};
  const unsigned char type = *CMSG_DATA(header);
  if (type == kAlert && count >= 2) {
    if (bytes[1] == kCloseNotify) return {KtlsRecord::Kind::kClosed, {}};
    return {KtlsRecord::Kind::kAlert, tls_alert(bytes[1])};
  }
  if (type == kHandshake && bytes[0] == kNewSessionTicket) return {KtlsRecord::Kind::kIgnored, {}};
  if (type == kHandshake && bytes[0] == kKeyUpdate)
    return {KtlsRecord::Kind::kOther, "new keys, which the kernel does not take"};
  return {KtlsRecord::Kind::kOther, "a record of type " + std::to_string(type)};
}

std::uint64_t ktls_records(int socket) {
  std::uint64_t most = 0;
  // Only the structure of the cipher in use is accepted.
  for (const int direction : {TLS_TX, TLS_RX})
    most = std::max({most, records<tls12_crypto_info_aes_gcm_128>(socket, direction),
                     records<tls12_crypto_info_aes_gcm_256>(socket, direction)});
  return most;
}

void ktls_close_notify(int socket) {
  unsigned char alert[] = {1 /* warning */, kCloseNotify};
  Record record(alert, sizeof alert);
  cmsghdr* const header = CMSG_FIRSTHDR(&record.message);
  header->cmsg_level = SOL_TLS;
  header->cmsg_type = TLS_SET_RECORD_TYPE;
  header->cmsg_len = CMSG_LEN(1);
  *CMSG_DATA(header) = kAlert;
  (void)::sendmsg(socket, &record.message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

}  // namespace rmem::transport
