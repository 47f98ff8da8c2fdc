// SPDX-License-Identifier: MIT
// Who we are and whom we believe: certificates and shared keys, out of files.
#pragma once

#include <gnutls/gnutls.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hh"

namespace rmem::transport {

enum class TlsSide { kClient, kServer };

// Names of files, never what is in them.
struct TlsOptions {
  // A directory with ca-cert.pem, {client,server}-cert.pem, {client,server}-key.pem and, if
  // any have been revoked, ca-crl.pem: nbdkit's names. A client may do without its own
  // certificate where the server does.
  std::string certificates;
  // A file with lines IDENTITY:HEX, as psktool writes it.
  std::string psk;
  // Of the client, whose key of `psk`; empty: the only one.
  std::string username;
  // Of the server: clients have to have a certificate.
  bool verify_peer = true;
  // Whether the kernel encrypts and decrypts (kTLS), so that its modules see plain bytes.
  enum class Kernel { kAuto, kOff, kRequired };
  Kernel kernel = Kernel::kAuto;
  // Of what this side sends by QUIC.
  enum class Congestion { kBbr, kCubic, kReno };
  Congestion congestion = Congestion::kBbr;
  // A connection is worn when it has sent or received so many records. AES-GCM is good for
  // 2^24.5 (RFC 8446, section 5.5); the kernel takes no new keys, so another connection does.
  std::uint64_t records = 1 << 23;

  bool configured() const { return !certificates.empty() || !psk.empty(); }
  bool operator==(const TlsOptions&) const = default;
};

// A key; forgotten with the object.
class Secret {
 public:
  explicit Secret(std::vector<std::uint8_t> bytes) : bytes_(std::move(bytes)) {}
  Secret(Secret&&) = default;
  Secret& operator=(Secret&&) = default;
  ~Secret() { gnutls_memset(bytes_.data(), 0, bytes_.size()); }
  const std::vector<std::uint8_t>& bytes() const { return bytes_; }

 private:
  std::vector<std::uint8_t> bytes_;
};

// By identity, out of lines IDENTITY:HEX; `#' begins a comment. kFailed names `file`, the line
// and what is wrong with it, and never quotes it.
using TlsKeys = std::map<std::string, Secret, std::less<>>;
Result<TlsKeys> parse_tls_keys(std::string_view text, const std::string& file);

// What the files said when they were read. Shared by the connections that were made with it;
// they may be of different threads.
class TlsCredentials {
 public:
  // kUsage: no file is named; kNotFound: one is missing; kPermission: one may not be read, or
  // others may read a secret one; kFailed: one makes no sense. The cause names it.
  static Result<std::shared_ptr<const TlsCredentials>> load(TlsSide side,
                                                            const TlsOptions& options);
  ~TlsCredentials();
  TlsCredentials(const TlsCredentials&) = delete;
  TlsCredentials& operator=(const TlsCredentials&) = delete;

  TlsSide side() const { return side_; }
  TlsOptions::Kernel kernel() const { return options_.kernel; }
  TlsOptions::Congestion congestion() const { return options_.congestion; }
  std::uint64_t records() const { return options_.records; }
  // What carries the session: QUIC has no use for what hides TLS 1.3 from old machines on the way
  // (RFC 9001, section 8.4).
  enum class Below { kStream, kQuic };
  // Makes a session of this side, with those flags of gnutls_init() besides; the caller's to end,
  // also after an error. This outlives it.
  Status begin(gnutls_session_t& session, unsigned flags, Below below = Below::kStream) const;

 private:
  TlsCredentials(TlsSide side, TlsOptions options) : side_(side), options_(std::move(options)) {}
  Status load_certificates();
  Status load_keys();
  static int find_key(gnutls_session_t session, const gnutls_datum_t* name, gnutls_datum_t* key);

  const TlsSide side_;
  const TlsOptions options_;
  gnutls_certificate_credentials_t certificates_ = nullptr;
  gnutls_psk_server_credentials_t server_keys_ = nullptr;
  gnutls_psk_client_credentials_t client_keys_ = nullptr;
  TlsKeys keys_;
};

// Credentials that follow their files: who renews a certificate need tell nobody. Used by
// the reactor's thread only.
class TlsFiles {
 public:
  TlsFiles(TlsSide side, TlsOptions options) : side_(side), options_(std::move(options)) {}

  // As the files are now. Where they can no longer be used, as they were, and a warning.
  Result<std::shared_ptr<const TlsCredentials>> current();

 private:
  // Of each file: inode, size and time of its last change.
  using Stamp = std::vector<std::uint64_t>;
  Stamp stamp() const;

  const TlsSide side_;
  const TlsOptions options_;
  Stamp seen_;
  std::shared_ptr<const TlsCredentials> loaded_;
};

}  // namespace rmem::transport
