// SPDX-License-Identifier: MIT
// Datagrams, many at a time: segmentation and coalescing by the kernel where it can (UDP_SEGMENT,
// UDP_GRO: udp(7)), and the marks of explicit congestion notification (RFC 3168).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.hh"
#include "base/unique_fd.hh"
#include "transport/address.hh"

namespace rmem::transport {

// Not thread-safe. Never blocks.
class UdpSocket {
 public:
  // At `local`. kBusy: somebody is there already.
  static Result<UdpSocket> bind(const SocketAddress& local);
  // One that is bound already (socket activation).
  static Result<UdpSocket> adopt(UniqueFd fd);
  static bool is_udp(int fd);
  // At an address from which `remote` can be reached; carries nothing from or to others.
  static Result<UdpSocket> connect(const SocketAddress& remote);

  int fd() const { return fd_.get(); }
  // Where it is, with the port that the kernel chose.
  const SocketAddress& local() const { return local_; }

  // Datagrams of one peer that came together: each of `segment` bytes but for the last.
  struct Batch {
    SocketAddress from, to;
    std::uint8_t ecn = 0;  // of all of them
    std::span<const std::uint8_t> bytes;
    std::size_t segment = 0;
  };
  // The next one; `bytes` are valid until the next call. 0, or a positive errno: EAGAIN if there
  // is none.
  int receive(Batch& batch);
  // Sends `batch`, in as many datagrams. 0, or a positive errno; EAGAIN: nothing of it has been
  // sent, and the socket is writable again some day.
  int send(const Batch& batch);

 private:
  UdpSocket(UniqueFd fd, const SocketAddress& local, bool connected);
  int send_some(const Batch& batch, std::span<const std::uint8_t> bytes);

  UniqueFd fd_;
  SocketAddress local_;
  bool connected_;
  bool segments_ = true;  // the kernel makes datagrams out of what it gets
  std::vector<std::uint8_t> buffer_;
};

}  // namespace rmem::transport
