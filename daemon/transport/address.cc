// SPDX-License-Identifier: MIT
#include "transport/address.hh"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "base/uri.hh"

namespace rmem::transport {
namespace {

std::string host_port(const std::string& host, std::uint16_t port) {
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

}  // namespace

Result<Address> Address::parse(std::string_view text) {
  auto uri = Uri::parse(text);
  if (!uri) return uri.status();
  if (const Status keys = uri->expect_keys({}); !keys.ok()) return keys;
  Address address;
  if (uri->scheme == "tcp" || uri->scheme == "tls" || uri->scheme == "quic") {
    if (uri->host.empty() || (!uri->path.empty() && uri->path != "/"))
      return Status(Code::kUsage,
                    "`" + std::string(text) + "': not of the form " + uri->scheme + "://host:port");
    if (uri->scheme == "tls") address.kind = Kind::kTls;
    if (uri->scheme == "quic") address.kind = Kind::kQuic;
    address.host = uri->host;
    address.port = uri->port.value_or(kDefaultPort);
    return address;
  }
  if (uri->scheme == "unix") {
    if (!uri->host.empty() || uri->port || uri->path.size() < 2)
      return Status(Code::kUsage, "`" + std::string(text) + "': not of the form unix:///path");
    address.path = uri->path;
    return address;
  }
  return Status(
      Code::kUsage, "`" + std::string(text) + "': unknown kind of address",
      "use tls://host:port, quic://host:port, tcp://host:port or unix:///path; [::1] for IPv6");
}

std::string Address::to_string() const {
  if (is_unix()) return "unix://" + path;
  const char* const scheme = kind == Kind::kQuic  ? "quic://"
                             : kind == Kind::kTls ? "tls://"
                                                  : "tcp://";
  return scheme + host_port(host, port);
}

std::uint16_t SocketAddress::port() const {
  if (family() == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in*>(&storage)->sin_port);
  if (family() == AF_INET6)
    return ntohs(reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_port);
  return 0;
}

bool SocketAddress::local() const {
  switch (family()) {
    case AF_UNIX:
      return true;
    case AF_INET: {
      const auto* v4 = reinterpret_cast<const sockaddr_in*>(&storage);
      return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
    }
    case AF_INET6: {
      const auto& v6 = reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_addr;
      if (IN6_IS_ADDR_V4MAPPED(&v6)) return v6.s6_addr[12] == 127;
      return IN6_IS_ADDR_LOOPBACK(&v6);
    }
    default:
      return false;
  }
}

std::string SocketAddress::to_string() const {
  if (family() == AF_UNIX) return "unix socket";
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (::getnameinfo(get(), length, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    return "unknown address";
  const std::string name(host);
  return (name.find(':') != std::string::npos ? "[" + name + "]" : name) + ":" + port;
}

Result<SocketAddress> unix_address(const std::string& path) {
  SocketAddress address;
  auto* un = reinterpret_cast<sockaddr_un*>(&address.storage);
  if (path.empty() || path.size() >= sizeof un->sun_path)
    return Status(Code::kUsage,
                  "`" + path + "': a socket's path has at most " +
                      std::to_string(sizeof un->sun_path - 1) + " bytes",
                  "use a shorter path");
  un->sun_family = AF_UNIX;
  std::memcpy(un->sun_path, path.c_str(), path.size() + 1);
  address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  return address;
}

Result<std::vector<SocketAddress>> resolve(const std::string& host, std::uint16_t port,
                                           bool passive, bool numeric) {
  addrinfo hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0) | (numeric ? AI_NUMERICHOST : 0);
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (error != 0) {
    // A name server that is silent for the moment is not a name that is wrong.
    const Code code = error == EAI_AGAIN ? Code::kUnreachable : Code::kNotFound;
    return Status(code, "cannot resolve `" + host + "': " + ::gai_strerror(error),
                  "check the host's name");
  }
  std::vector<SocketAddress> addresses;
  for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
    SocketAddress address;
    std::memcpy(&address.storage, entry->ai_addr, entry->ai_addrlen);
    address.length = entry->ai_addrlen;
    addresses.push_back(address);
  }
  ::freeaddrinfo(found);
  return addresses;
}

std::string host_of(const std::string& peer) {
  const auto colon = peer.rfind(':');
  const auto bracket = peer.rfind(']');
  const bool six = !peer.empty() && peer[0] == '[' && bracket != std::string::npos;
  if (!six) return peer.substr(0, colon);
  std::string address = peer.substr(1, bracket - 1);
  address.resize(std::min(address.size(), address.find('%')));  // a scope
  in6_addr bytes;
  if (::inet_pton(AF_INET6, address.c_str(), &bytes) != 1) return address;
  char text[INET6_ADDRSTRLEN];
  if (IN6_IS_ADDR_V4MAPPED(&bytes)) {
    ::inet_ntop(AF_INET, bytes.s6_addr + 12, text, sizeof text);
    return text;
  }
  std::fill(bytes.s6_addr + 8, bytes.s6_addr + 16, std::uint8_t{0});
  ::inet_ntop(AF_INET6, &bytes, text, sizeof text);
  return std::string(text) + "/64";
}

}  // namespace rmem::transport
