// SPDX-License-Identifier: MIT
// The raw TCP under the peers: a server that sends the bytes it is asked for, takes those it is
// given, and nothing around them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/result.hh"
#include "base/unique_fd.hh"
#include "transport/address.hh"

namespace rmem::bench {

// One connection to the server. What is asked and given is answered in that order;
// kUnreachable when the server is gone, or does not have such bytes.
class Link {
 public:
  static Result<Link> connect(const transport::Address& server);
  static Result<std::vector<Link>> connect(const transport::Address& server, unsigned count);

  // The server's bytes from `offset` on: ask() and receive() in one.
  Status read(std::uint64_t offset, std::span<std::byte> into);
  Status ask(std::uint64_t offset, std::size_t length);
  Status receive(std::span<std::byte> into);

  // The server's bytes from `offset` on become these; it has them after acknowledged().
  Status give(std::uint64_t offset, std::span<const std::byte> bytes);
  Status acknowledged();

 private:
  explicit Link(UniqueFd fd) : fd_(std::move(fd)) {}

  UniqueFd fd_;
};

// A listening socket at the address, and the address with the port it got.
Result<UniqueFd> listen_at(transport::Address& address);

// Serves `size` bytes, at first those of the pattern, to whoever connects, a thread each, each
// request with one send(); does not return. `ready` is called before the first
// is accepted.
Status serve(const UniqueFd& listener, std::uint64_t size, const std::function<void()>& ready);

}  // namespace rmem::bench
