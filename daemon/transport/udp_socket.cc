// SPDX-License-Identifier: MIT
#include "transport/udp_socket.hh"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace rmem::transport {
namespace {

constexpr std::size_t kMostBytes = 64 << 10;  // of one call, by udp(7)
constexpr std::size_t kMostSegments = 64;     // UDP_MAX_SEGMENTS of Linux 6.1
constexpr int kUdpBuffer = 4 << 20;           // of the socket, each way, if we may

void set_udp_option(int fd, int level, int name, int value) {
  ::setsockopt(fd, level, name, &value, sizeof value);
}

void prepare(const UniqueFd& fd, int family) {
  for (const auto& [forced, otherwise] :
       {std::pair{SO_RCVBUFFORCE, SO_RCVBUF}, std::pair{SO_SNDBUFFORCE, SO_SNDBUF}}) {
    const int size = kUdpBuffer;
    if (::setsockopt(fd.get(), SOL_SOCKET, forced, &size, sizeof size) != 0)
      set_udp_option(fd.get(), SOL_SOCKET, otherwise, size);
  }
  set_udp_option(fd.get(), SOL_UDP, UDP_GRO, 1);
  // QUIC finds out itself how large a packet may be (RFC 9000, section 14).
  if (family == AF_INET) {
    set_udp_option(fd.get(), IPPROTO_IP, IP_PKTINFO, 1);
    set_udp_option(fd.get(), IPPROTO_IP, IP_RECVTOS, 1);
    set_udp_option(fd.get(), IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE);
  } else {
    set_udp_option(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1);
    set_udp_option(fd.get(), IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
    set_udp_option(fd.get(), IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
    set_udp_option(fd.get(), IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE);
  }
}

Result<UniqueFd> make_udp(int family) {
  UniqueFd fd(::socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return Status::from_errno(errno, "socket");
  prepare(fd, family);
  return fd;
}

SocketAddress local_name(int fd) {
  SocketAddress address;
  address.length = sizeof address.storage;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address.storage), &address.length);
  return address;
}

}  // namespace

UdpSocket::UdpSocket(UniqueFd fd, const SocketAddress& local, bool connected)
    : fd_(std::move(fd)), local_(local), connected_(connected), buffer_(kMostBytes) {}

Result<UdpSocket> UdpSocket::bind(const SocketAddress& local) {
  auto fd = make_udp(local.family());
  if (!fd) return fd.status();
  if (::bind(fd->get(), local.get(), local.length) != 0) {
    if (errno == EADDRINUSE)
      return Status(Code::kBusy, local.to_string() + " is in use", {}, EADDRINUSE);
    return Status::from_errno(errno, "bind to " + local.to_string());
  }
  const SocketAddress at = local_name(fd->get());
  return UdpSocket(std::move(fd).value(), at, false);
}

Result<UdpSocket> UdpSocket::adopt(UniqueFd fd) {
  const SocketAddress at = local_name(fd.get());
  if (::fcntl(fd.get(), F_SETFL, O_RDWR | O_NONBLOCK) != 0)
    return Status::from_errno(errno, "fcntl");
  prepare(fd, at.family());
  return UdpSocket(std::move(fd), at, false);
}

bool UdpSocket::is_udp(int fd) {
  int protocol = -1;
  socklen_t length = sizeof protocol;
  (void)::getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length);
  return protocol == IPPROTO_UDP;
}

Result<UdpSocket> UdpSocket::connect(const SocketAddress& remote) {
  auto fd = make_udp(remote.family());
  if (!fd) return fd.status();
  if (::connect(fd->get(), remote.get(), remote.length) != 0)
    return Status::from_errno(errno, "connect to " + remote.to_string());
  const SocketAddress at = local_name(fd->get());
  return UdpSocket(std::move(fd).value(), at, true);
}

int UdpSocket::receive(Batch& batch) {
  iovec space = {buffer_.data(), buffer_.size()};
  alignas(cmsghdr) char control[256];
  msghdr message = {};
  message.msg_name = &batch.from.storage;
  message.msg_namelen = sizeof batch.from.storage;
  message.msg_iov = &space;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t got = ::recvmsg(fd_.get(), &message, 0);
  if (got < 0) return errno;
  batch.from.length = message.msg_namelen;
  batch.to = local_;
  batch.ecn = 0;
  batch.bytes = {buffer_.data(), static_cast<std::size_t>(got)};
  batch.segment = batch.bytes.size();
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    const void* const data = CMSG_DATA(part);
    if (part->cmsg_level == SOL_UDP && part->cmsg_type == UDP_GRO) {
      int size = 0;
      std::memcpy(&size, data, sizeof size);
      if (size > 0) batch.segment = static_cast<std::size_t>(size);
    } else if (part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_TOS) {
      batch.ecn = *static_cast<const std::uint8_t*>(data) & 3;
    } else if (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_TCLASS) {
      int value = 0;
      std::memcpy(&value, data, sizeof value);
      batch.ecn = static_cast<std::uint8_t>(value & 3);
    } else if (part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_PKTINFO && !connected_) {
      in_pktinfo info;
      std::memcpy(&info, data, sizeof info);
      reinterpret_cast<sockaddr_in*>(&batch.to.storage)->sin_addr = info.ipi_addr;
    } else if (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_PKTINFO && !connected_) {
      in6_pktinfo info;
      std::memcpy(&info, data, sizeof info);
      reinterpret_cast<sockaddr_in6*>(&batch.to.storage)->sin6_addr = info.ipi6_addr;
    }
  }
  return 0;
}

int UdpSocket::send(const Batch& batch) {
  const std::size_t at_once =
      segments_
          ? std::max(std::min(kMostSegments, (kMostBytes - 1024) / batch.segment), std::size_t{1}) *
                batch.segment
          : batch.segment;
  for (std::size_t at = 0; at < batch.bytes.size(); at += at_once) {
    const auto part = batch.bytes.subspan(at, std::min(at_once, batch.bytes.size() - at));
    const int err = send_some(batch, part);
    if (err == EIO && segments_ && part.size() > batch.segment) {
      segments_ = false;  // this device cannot (udp(7)): one by one
      Batch rest = batch;
      rest.bytes = batch.bytes.subspan(at);
      return send(rest);
    }
    // What has not gone is lost, as packets are; only the first may be tried again.
    if (err != 0 && at == 0) return err;
    if (err != 0) return 0;
  }
  return 0;
}

int UdpSocket::send_some(const Batch& batch, std::span<const std::uint8_t> bytes) {
  iovec from = {const_cast<std::uint8_t*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) char control[128] = {};
  msghdr message = {};
  message.msg_iov = &from;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  std::size_t length = 0;
  cmsghdr* part = CMSG_FIRSTHDR(&message);
  const auto add = [&](int level, int type, const void* data, std::size_t size) {
    part->cmsg_level = level;
    part->cmsg_type = type;
    part->cmsg_len = CMSG_LEN(size);
    std::memcpy(CMSG_DATA(part), data, size);
    length += CMSG_SPACE(size);
    part = reinterpret_cast<cmsghdr*>(control + length);
  };
  if (!connected_) {
    message.msg_name = const_cast<sockaddr*>(batch.to.get());
    message.msg_namelen = batch.to.length;
    if (batch.from.family() == AF_INET) {
      in_pktinfo info = {};
      info.ipi_spec_dst = reinterpret_cast<const sockaddr_in*>(&batch.from.storage)->sin_addr;
      add(IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
    } else {
      in6_pktinfo info = {};
      info.ipi6_addr = reinterpret_cast<const sockaddr_in6*>(&batch.from.storage)->sin6_addr;
      add(IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
    }
  }
  const int ecn = batch.ecn;
  if (ecn != 0 && local_.family() == AF_INET) add(IPPROTO_IP, IP_TOS, &ecn, sizeof ecn);
  if (ecn != 0 && local_.family() == AF_INET6) add(IPPROTO_IPV6, IPV6_TCLASS, &ecn, sizeof ecn);
  if (bytes.size() > batch.segment) {
    const auto segment = static_cast<std::uint16_t>(batch.segment);
    add(SOL_UDP, UDP_SEGMENT, &segment, sizeof segment);
  }
  message.msg_controllen = length;
  return ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL) < 0 ? errno : 0;
}

}  // namespace rmem::transport
