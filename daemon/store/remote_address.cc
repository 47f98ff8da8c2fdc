// SPDX-License-Identifier: MIT
#include "base/uri.hh"
#include "store/remote.hh"
#include "transport/address.hh"
#include "wire/messages.hh"

namespace rmem::store {
namespace {

Status bad(std::string_view uri, const std::string& why) {
  return Status(Code::kUsage, "`" + std::string(uri) + "': " + why,
                "use rmem://host:port/export, rmems://host:port/export (TLS), "
                "rmem+quic://host:port/export or rmem+unix:///export?socket=/path");
}

// What Uri::parse() undoes. `special`: what else means something where it stands.
std::string encode(std::string_view text, std::string_view special = {}) {
  std::string encoded;
  for (const char c : text) {
    static constexpr std::string_view kSpecial = "%?#&= ";
    if (kSpecial.find(c) == std::string_view::npos && special.find(c) == std::string_view::npos &&
        c > 0x20 && c < 0x7f) {
      encoded += c;
      continue;
    }
    static constexpr char kDigits[] = "0123456789abcdef";
    const auto byte = static_cast<unsigned char>(c);
    ((encoded += '%') += kDigits[byte >> 4]) += kDigits[byte & 15];
  }
  return encoded;
}

}  // namespace

Result<RemoteAddress> RemoteAddress::parse(std::string_view text) {
  auto uri = Uri::parse(text);
  if (!uri) return bad(text, "not a URI");
  RemoteAddress address;
  if (uri->path.size() < 2) return bad(text, "the name of the export is missing");
  address.export_name = uri->path.substr(1);
  if (address.export_name.size() > wire::kMaxName)
    return bad(text, "the export's name is too long");
  using Kind = transport::Address::Kind;
  if (uri->scheme == "rmem" || uri->scheme == "rmems" || uri->scheme == "rmem+quic") {
    if (uri->scheme == "rmems") address.kind = Kind::kTls;
    if (uri->scheme == "rmem+quic") address.kind = Kind::kQuic;
    const Status keys =
        address.secure()
            ? uri->expect_keys({"tls-certificates", "tls-psk-file", "tls-username", "tls-hostname"})
            : uri->expect_keys({});
    if (!keys.ok()) return bad(text, keys.cause());
    if (uri->host.empty()) return bad(text, "the host is missing");
    address.host = uri->host;
    address.port = uri->port.value_or(transport::kDefaultPort);
    for (const auto& [key, place] : {std::pair{"tls-certificates", &address.tls_files.certificates},
                                     std::pair{"tls-psk-file", &address.tls_files.psk},
                                     std::pair{"tls-username", &address.tls_files.username},
                                     std::pair{"tls-hostname", &address.tls_hostname}}) {
      const auto given = uri->query.find(key);
      if (given == uri->query.end()) continue;
      if (given->second.empty()) return bad(text, std::string(key) + " is empty");
      *place = given->second;
    }
    for (const std::string* file : {&address.tls_files.certificates, &address.tls_files.psk})
      if (!file->empty() && !file->starts_with('/'))
        return bad(text, "`" + *file + "' is not an absolute path");
    if (!address.tls_files.certificates.empty() && !address.tls_files.psk.empty())
      return bad(text, "certificates or a key, not both");
    return address;
  }
  if (uri->scheme == "rmem+unix") {
    if (const Status keys = uri->expect_keys({"socket"}); !keys.ok())
      return bad(text, keys.cause());
    if (!uri->host.empty() || uri->port) return bad(text, "a unix socket has no host");
    if (!uri->query.contains("socket") || !uri->query.at("socket").starts_with('/'))
      return bad(text, "?socket=/path is missing");
    address.socket_path = uri->query.at("socket");
    return address;
  }
  return bad(text, "unknown scheme `" + uri->scheme + "'");
}

std::string RemoteAddress::to_string() const {
  if (!socket_path.empty())
    return "rmem+unix:///" + encode(export_name) + "?socket=" + encode(socket_path);
  const bool v6 = host.find(':') != std::string::npos;
  const std::string name = encode(host, "[]/");
  const char* const scheme = kind == transport::Address::Kind::kQuic  ? "rmem+quic://"
                             : kind == transport::Address::Kind::kTls ? "rmems://"
                                                                      : "rmem://";
  std::string text = scheme + (v6 ? "[" + name + "]" : name) + ":" + std::to_string(port) + "/" +
                     encode(export_name);
  char before = '?';
  for (const auto& [key, value] :
       {std::pair{"tls-certificates=", &tls_files.certificates},
        std::pair{"tls-psk-file=", &tls_files.psk}, std::pair{"tls-username=", &tls_files.username},
        std::pair{"tls-hostname=", &tls_hostname}}) {
    if (value->empty()) continue;
    ((text += before) += key) += encode(*value);
    before = '&';
  }
  return text;
}

}  // namespace rmem::store
