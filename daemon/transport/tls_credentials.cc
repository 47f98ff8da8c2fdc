// SPDX-License-Identifier: MIT
#include "transport/tls_credentials.hh"

#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/x509.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <optional>

#include "base/log.hh"
#include "base/read_file.hh"
#include "base/unique_fd.hh"

namespace rmem::transport {
namespace {

constexpr std::size_t kMaxFile = 1 << 20;
constexpr std::size_t kMinKey = 16;  // bytes
constexpr std::size_t kUnknownKey = 32;
// No older version, whoever asks; what the kernel can do as well; and no key exchange
// without Diffie-Hellman, so that a key that leaks opens nothing that was sent before.
constexpr std::string_view kPriority =
    "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305";
constexpr std::string_view kWithKeys = ":+ECDHE-PSK:+DHE-PSK";
constexpr std::string_view kOnlyKeys = ":-KX-ALL:+ECDHE-PSK:+DHE-PSK";
// Nobody shall talk another protocol into this one, or this into another.
constexpr std::string_view kProtocol = "rmem";

const log::Source kFilesLog("tls");

const char* side_name(TlsSide side) { return side == TlsSide::kClient ? "client" : "server"; }

std::string path_of(const TlsOptions& options, std::string_view name) {
  return options.certificates + "/" + std::string(name);
}

// `secret`: others must not be able to read it.
Result<Secret> read_file(const std::string& path, bool secret) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!fd) return Status::from_errno(errno, path);
  struct stat info = {};
  if (::fstat(fd.get(), &info) != 0) return Status::from_errno(errno, path);
  if (!S_ISREG(info.st_mode)) return Status(Code::kFailed, path + ": not a file");
  if (secret && info.st_mode & (S_IRWXO | S_IWGRP))
    return Status(Code::kPermission, path + ": a secret that others have access to",
                  "chmod 0600 " + path);
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(info.st_size) + 1);
  if (bytes.size() > kMaxFile) return Status(Code::kFailed, path + ": too large");
  const ssize_t got = read_to_end(fd.get(), std::as_writable_bytes(std::span(bytes)));
  if (got < 0) return Status::from_errno(errno, path);
  bytes.resize(static_cast<std::size_t>(got));
  return Secret(std::move(bytes));
}

gnutls_datum_t datum(const std::vector<std::uint8_t>& bytes) {
  return {const_cast<unsigned char*>(bytes.data()), static_cast<unsigned>(bytes.size())};
}

Status understood(int result, const std::string& path) {
  if (result >= 0) return Status();
  return Status(Code::kFailed, path + ": " + gnutls_strerror(result), {}, EINVAL);
}

std::optional<std::vector<std::uint8_t>> from_hex(std::string_view text) {
  const auto digit = [](char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
  };
  if (text.size() % 2 != 0) return std::nullopt;
  std::vector<std::uint8_t> bytes;
  bytes.reserve(text.size() / 2);
  for (std::size_t i = 0; i < text.size(); i += 2) {
    const int high = digit(text[i]), low = digit(text[i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    bytes.push_back(static_cast<std::uint8_t>(high << 4 | low));
  }
  return bytes;
}

}  // namespace

Result<std::shared_ptr<const TlsCredentials>> TlsCredentials::load(TlsSide side,
                                                                   const TlsOptions& options) {
  const std::shared_ptr<TlsCredentials> made(new TlsCredentials(side, options));
  if (!options.configured())
    return Status(Code::kUsage, "TLS needs certificates or a file of keys",
                  "name them with --tls-certificates DIR or --tls-psk FILE");
  if (!options.certificates.empty())
    if (Status s = made->load_certificates(); !s.ok()) return s;
  if (!options.psk.empty())
    if (Status s = made->load_keys(); !s.ok()) return s;
  return std::shared_ptr<const TlsCredentials>(made);
}

TlsCredentials::~TlsCredentials() {
  if (certificates_ != nullptr) gnutls_certificate_free_credentials(certificates_);
  if (server_keys_ != nullptr) gnutls_psk_free_server_credentials(server_keys_);
  if (client_keys_ != nullptr) gnutls_psk_free_client_credentials(client_keys_);
}

Status TlsCredentials::load_certificates() {
  if (Status s = understood(gnutls_certificate_allocate_credentials(&certificates_), "TLS");
      !s.ok())
    return s;
  const std::string ca = path_of(options_, "ca-cert.pem");
  auto authority = read_file(ca, false);
  if (!authority) return authority.status();
  gnutls_datum_t data = datum(authority->bytes());
  const int count =
      gnutls_certificate_set_x509_trust_mem(certificates_, &data, GNUTLS_X509_FMT_PEM);
  if (Status s = understood(count, ca); !s.ok()) return s;
  if (count == 0) return Status(Code::kFailed, ca + ": no certificate in it", {}, EINVAL);

  const std::string crl = path_of(options_, "ca-crl.pem");
  if (auto revoked = read_file(crl, false); revoked.ok()) {
    data = datum(revoked->bytes());
    const int result =
        gnutls_certificate_set_x509_crl_mem(certificates_, &data, GNUTLS_X509_FMT_PEM);
    if (Status s = understood(result, crl); !s.ok()) return s;
  } else if (revoked.status().err() != ENOENT) {
    // Who has revoked something wants that to be known.
    return revoked.status();
  }

  const std::string side = side_name(side_);
  const std::string cert = path_of(options_, side + "-cert.pem");
  const std::string key = path_of(options_, side + "-key.pem");
  auto own = read_file(cert, false);
  if (!own.ok() && own.status().err() == ENOENT && side_ == TlsSide::kClient) return Status();
  if (!own.ok()) return own.status();
  auto own_key = read_file(key, true);
  if (!own_key) return own_key.status();
  data = datum(own->bytes());
  const gnutls_datum_t key_data = datum(own_key->bytes());
  return understood(gnutls_certificate_set_x509_key_mem2(certificates_, &data, &key_data,
                                                         GNUTLS_X509_FMT_PEM, nullptr, 0),
                    cert + ", " + side + "-key.pem");
}

Result<TlsKeys> parse_tls_keys(std::string_view text, const std::string& file) {
  TlsKeys keys;
  for (std::size_t line = 1; !text.empty(); ++line) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view one = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (one.ends_with('\r')) one.remove_suffix(1);
    if (one.empty() || one.starts_with('#')) continue;
    const std::string where = file + ":" + std::to_string(line);
    const std::size_t colon = one.find(':');
    auto key = from_hex(colon == std::string_view::npos ? "?" : one.substr(colon + 1));
    const std::string name(one.substr(0, colon));
    if (name.empty() || name.find('\0') != std::string::npos || !key)
      return Status(Code::kFailed, where + ": not of the form IDENTITY:HEX",
                    "psktool -u IDENTITY -p FILE adds such a line", EINVAL);
    Secret secret(std::move(*key));
    if (secret.bytes().size() < kMinKey)
      return Status(Code::kFailed, where + ": a key of less than 16 bytes",
                    "psktool -u IDENTITY -p FILE makes a good one", EINVAL);
    if (!keys.emplace(name, std::move(secret)).second)
      return Status(Code::kFailed, where + ": an identity for the second time", {}, EINVAL);
  }
  if (keys.empty()) return Status(Code::kFailed, file + ": no key in it", {}, EINVAL);
  return keys;
}

Status TlsCredentials::load_keys() {
  auto file = read_file(options_.psk, true);
  if (!file) return file.status();
  const auto& bytes = file->bytes();
  auto keys =
      parse_tls_keys({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, options_.psk);
  if (!keys) return keys.status();
  keys_ = std::move(keys).value();

  if (side_ == TlsSide::kServer) {
    if (Status s = understood(gnutls_psk_allocate_server_credentials(&server_keys_), "TLS");
        !s.ok())
      return s;
    gnutls_psk_set_server_credentials_function2(server_keys_, find_key);
    return Status();
  }
  auto mine = keys_.begin();
  if (!options_.username.empty())
    mine = keys_.find(options_.username);
  else if (keys_.size() > 1)
    return Status(Code::kUsage, options_.psk + ": several identities",
                  "say which with ?tls-username=IDENTITY");
  if (mine == keys_.end())
    return Status(Code::kNotFound, options_.psk + ": no key of `" + options_.username + "'");
  if (Status s = understood(gnutls_psk_allocate_client_credentials(&client_keys_), "TLS"); !s.ok())
    return s;
  const gnutls_datum_t key = datum(mine->second.bytes());
  return understood(gnutls_psk_set_client_credentials(client_keys_, mine->first.c_str(), &key,
                                                      GNUTLS_PSK_KEY_RAW),
                    options_.psk);
}

int TlsCredentials::find_key(gnutls_session_t session, const gnutls_datum_t* name,
                             gnutls_datum_t* key) {
  const auto* self = static_cast<const TlsCredentials*>(gnutls_db_get_ptr(session));
  const auto found =
      self->keys_.find(std::string_view(reinterpret_cast<const char*>(name->data), name->size));
  const bool known = found != self->keys_.end();
  const std::size_t size = known ? found->second.bytes().size() : kUnknownKey;
  key->data = static_cast<unsigned char*>(gnutls_malloc(size));
  if (key->data == nullptr) return -1;
  key->size = static_cast<unsigned>(size);
  // Who is unknown fails as one with a wrong key does: names cannot be probed.
  if (!known) return gnutls_rnd(GNUTLS_RND_KEY, key->data, size) == 0 ? 0 : -1;
  std::copy(found->second.bytes().begin(), found->second.bytes().end(), key->data);
  return 0;
}

Status TlsCredentials::begin(gnutls_session_t& session, unsigned flags, Below below) const {
  flags |= side_ == TlsSide::kClient ? unsigned{GNUTLS_CLIENT} | GNUTLS_FORCE_CLIENT_CERT
                                     : unsigned{GNUTLS_SERVER};
  if (const int result = gnutls_init(&session, flags | GNUTLS_NO_TICKETS); result != 0)
    return Status(Code::kFailed, std::string("TLS: ") + gnutls_strerror(result));
  std::string priority(kPriority);
  if (below == Below::kQuic) priority += ":%DISABLE_TLS13_COMPAT_MODE";
  if (!keys_.empty()) priority += certificates_ != nullptr ? kWithKeys : kOnlyKeys;
  const auto check = [](int result) { return understood(result, "TLS"); };
  // The pointer of the session itself is wanted by QUIC's library; nothing of ours is cached.
  gnutls_db_set_ptr(session, const_cast<TlsCredentials*>(this));
  if (Status s = check(gnutls_priority_set_direct(session, priority.c_str(), nullptr)); !s.ok())
    return s;
  if (certificates_ != nullptr)
    if (Status s = check(gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, certificates_));
        !s.ok())
      return s;
  void* const keys = side_ == TlsSide::kServer ? static_cast<void*>(server_keys_)
                                               : static_cast<void*>(client_keys_);
  if (keys != nullptr)
    if (Status s = check(gnutls_credentials_set(session, GNUTLS_CRD_PSK, keys)); !s.ok()) return s;
  if (side_ == TlsSide::kServer)
    gnutls_certificate_server_set_request(
        session, options_.verify_peer ? GNUTLS_CERT_REQUIRE : GNUTLS_CERT_IGNORE);
  const gnutls_datum_t protocol = {
      reinterpret_cast<unsigned char*>(const_cast<char*>(kProtocol.data())),
      static_cast<unsigned>(kProtocol.size())};
  return check(gnutls_alpn_set_protocols(session, &protocol, 1, GNUTLS_ALPN_MANDATORY));
}

TlsFiles::Stamp TlsFiles::stamp() const {
  Stamp stamp;
  const auto add = [&stamp](const std::string& path) {
    struct stat info = {};
    if (::stat(path.c_str(), &info) != 0) info = {};
    stamp.insert(stamp.end(), {info.st_ino, static_cast<std::uint64_t>(info.st_size),
                               static_cast<std::uint64_t>(info.st_mtim.tv_sec),
                               static_cast<std::uint64_t>(info.st_mtim.tv_nsec)});
  };
  if (!options_.certificates.empty()) {
    const std::string side = side_name(side_);
    for (const std::string& name : {std::string("ca-cert.pem"), std::string("ca-crl.pem"),
                                    side + "-cert.pem", side + "-key.pem"})
      add(path_of(options_, name));
  }
  if (!options_.psk.empty()) add(options_.psk);
  return stamp;
}

Result<std::shared_ptr<const TlsCredentials>> TlsFiles::current() {
  Stamp now = stamp();
  if (loaded_ && now == seen_) return loaded_;
  auto loaded = TlsCredentials::load(side_, options_);
  if (!loaded.ok() && !loaded_) return loaded;
  // Once for each change: half of a renewed pair, say. The other half will be another one.
  seen_ = std::move(now);
  if (loaded.ok()) {
    if (loaded_) kFilesLog.info("certificates and keys read again");
    loaded_ = std::move(loaded).value();
  } else {
    kFilesLog.error("{}; what was read before stays in use", loaded.status().cause());
  }
  return loaded_;
}

}  // namespace rmem::transport
