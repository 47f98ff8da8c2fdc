// SPDX-License-Identifier: MIT
#include "link.hh"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <thread>
#include <vector>

#include "base/bytes.hh"
#include "pattern.hh"
#include "transport/socket.hh"

namespace rmem::bench {
namespace {

constexpr int kBacklog = 128;

// Operation, offset and length, little-endian. The answer to a read is the bytes; a write is
// followed by them, and its answer is one byte.
constexpr std::size_t kRequest = 24;
enum Operation : std::uint64_t { kRead, kWrite };

using Request = std::array<std::byte, kRequest>;

Request request_of(Operation operation, std::uint64_t offset, std::uint64_t length) {
  Request request;
  store_le(request.data(), std::uint64_t{operation});
  store_le(request.data() + 8, offset);
  store_le(request.data() + 16, length);
  return request;
}

Result<transport::SocketAddress> look_up(const transport::Address& address, bool passive) {
  if (address.is_unix()) return Status(Code::kUsage, address.to_string() + ": the peers speak TCP");
  auto found = transport::resolve(address.host, address.port, passive, false);
  if (!found) return found.status();
  return found->front();
}

Status send_all(int fd, std::span<const std::byte> bytes, int flags = 0) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | flags);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return Status::from_errno(errno, "send");
    bytes = bytes.subspan(static_cast<std::size_t>(sent));
  }
  return Status();
}

Status receive_all(int fd, std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t got = ::recv(fd, bytes.data(), bytes.size(), MSG_WAITALL);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Status::from_errno(errno, "recv");
    if (got == 0) return Status(Code::kUnreachable, "the server closed the connection");
    bytes = bytes.subspan(static_cast<std::size_t>(got));
  }
  return Status();
}

void answer(const UniqueFd& fd, std::span<std::byte> bytes) {
  Request request;
  while (receive_all(fd.get(), request).ok()) {
    const auto operation = load_le<std::uint64_t>(request.data());
    const auto offset = load_le<std::uint64_t>(request.data() + 8);
    const auto length = load_le<std::uint64_t>(request.data() + 16);
    if (offset > bytes.size() || length > bytes.size() - offset) return;
    const auto part = bytes.subspan(offset, length);
    if (operation == kRead) {
      if (!send_all(fd.get(), part).ok()) return;
    } else {
      const std::array<std::byte, 1> done{};
      if (!receive_all(fd.get(), part).ok() || !send_all(fd.get(), done).ok()) return;
    }
  }
}

}  // namespace

Result<Link> Link::connect(const transport::Address& server) {
  const auto address = look_up(server, false);
  if (!address) return address.status();
  UniqueFd fd(::socket(address->family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return Status::from_errno(errno, "socket");
  if (::connect(fd.get(), address->get(), address->length) != 0)
    return Status::from_errno(errno, "cannot connect to " + server.to_string());
  transport::tune_socket(fd.get(), address->family(), false);
  return Link(std::move(fd));
}

Result<std::vector<Link>> Link::connect(const transport::Address& server, unsigned count) {
  std::vector<Link> links;
  while (links.size() < count) {
    auto link = connect(server);
    if (!link) return link.status();
    links.push_back(std::move(link).value());
  }
  return links;
}

Status Link::read(std::uint64_t offset, std::span<std::byte> into) {
  if (Status asked = ask(offset, into.size()); !asked.ok()) return asked;
  return receive(into);
}

Status Link::ask(std::uint64_t offset, std::size_t length) {
  return send_all(fd_.get(), request_of(kRead, offset, length));
}

Status Link::receive(std::span<std::byte> into) { return receive_all(fd_.get(), into); }

Status Link::give(std::uint64_t offset, std::span<const std::byte> bytes) {
  const Request request = request_of(kWrite, offset, bytes.size());
  if (Status sent = send_all(fd_.get(), request, MSG_MORE); !sent.ok()) return sent;
  return send_all(fd_.get(), bytes);
}

Status Link::acknowledged() {
  std::array<std::byte, 1> done;
  return receive_all(fd_.get(), done);
}

Result<UniqueFd> listen_at(transport::Address& address) {
  const auto at = look_up(address, true);
  if (!at) return at.status();
  UniqueFd fd(::socket(at->family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return Status::from_errno(errno, "socket");
  const int on = 1;
  (void)::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd.get(), at->get(), at->length) != 0 || ::listen(fd.get(), kBacklog) != 0)
    return Status::from_errno(errno, "cannot listen at " + address.to_string());
  transport::SocketAddress bound;
  bound.length = sizeof bound.storage;
  (void)::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&bound.storage), &bound.length);
  address.port = ntohs(bound.family() == AF_INET6
                           ? reinterpret_cast<const sockaddr_in6*>(bound.get())->sin6_port
                           : reinterpret_cast<const sockaddr_in*>(bound.get())->sin_port);
  return fd;
}

Status serve(const UniqueFd& listener, std::uint64_t size, const std::function<void()>& ready) {
  std::vector<std::byte> bytes(size);
  fill_pattern(bytes, 0);
  ready();
  while (true) {
    UniqueFd fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!fd && (errno == EINTR || errno == ECONNABORTED)) continue;
    if (!fd) return Status::from_errno(errno, "accept");
    transport::tune_socket(fd.get(), AF_INET, false);
    std::thread([fd = std::move(fd), &bytes] { answer(fd, bytes); }).detach();
  }
}

}  // namespace rmem::bench
