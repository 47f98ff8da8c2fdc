// SPDX-License-Identifier: MIT
// The raw TCP under the peers: a server that sends the bytes it is asked for,
// and nothing around them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "base/result.hh"
#include "base/unique_fd.hh"
#include "transport/address.hh"

namespace rmem::bench {

// One connection to the server; one request at a time.
class Link {
 public:
  static Result<Link> connect(const transport::Address& server);

  // The server's bytes from `offset` on. kUnreachable when it is gone, or does
  // not have them.
  Status read(std::uint64_t offset, std::span<std::byte> into);

 private:
  explicit Link(UniqueFd fd) : fd_(std::move(fd)) {}

  UniqueFd fd_;
};

// A listening socket at the address, and the address with the port it got.
Result<UniqueFd> listen_at(transport::Address& address);

// Serves `size` bytes of the pattern to whoever connects, a thread each, each
// request with one send(); does not return. `ready` is called before the first
// is accepted.
Status serve(const UniqueFd& listener, std::uint64_t size, const std::function<void()>& ready);

}  // namespace rmem::bench
