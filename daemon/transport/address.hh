// SPDX-License-Identifier: MIT
// Where to listen or to connect to.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hh"

namespace rmem::transport {

inline constexpr std::uint16_t kDefaultPort = 7070;

// As the user wrote it, not resolved.
struct Address {
  std::string host;  // name or number; empty for a unix socket
  std::uint16_t port = kDefaultPort;
  std::string path;  // of a unix socket; empty otherwise
  enum class Kind { kPlain, kTls, kQuic };
  Kind kind = Kind::kPlain;  // over TCP; QUIC is over UDP

  bool is_unix() const { return !path.empty(); }
  // Whether the peer has to prove who it is, and nobody else can read along.
  bool secure() const { return kind != Kind::kPlain; }

  // tcp://host:port, tcp://[::1]:port, the same with tls:// and quic://, unix:///path; kUsage for
  // anything else.
  static Result<Address> parse(std::string_view uri);
  std::string to_string() const;

  bool operator==(const Address&) const = default;
};

// As the kernel wants it.
struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  int family() const { return storage.ss_family; }
  // 0 of a unix socket.
  std::uint16_t port() const;
  // Unix sockets, 127.0.0.0/8 and ::1, also as ::ffff:127.0.0.0/104.
  bool local() const;
  // "192.0.2.1:7070", "[::1]:7070", "unix socket".
  std::string to_string() const;
};

// What counts as one host, of Connection::peer(): the address without its port, of IPv6 the
// network (/64), of which a host has as many addresses as it likes.
std::string host_of(const std::string& peer);

// kUsage if the path does not fit.
Result<SocketAddress> unix_address(const std::string& path);

// The addresses of `host`, in the order of preference. `passive`: to listen on.
// Blocks while it asks a name server, unless `numeric` (then kNotFound for a
// name).
Result<std::vector<SocketAddress>> resolve(const std::string& host, std::uint16_t port,
                                           bool passive, bool numeric);

}  // namespace rmem::transport
