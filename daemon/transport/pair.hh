// SPDX-License-Identifier: MIT
// Two connected ends in memory, for tests: no kernel, no timing.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

#include "base/reactor.hh"
#include "transport/transport.hh"

namespace rmem::transport {

// Each direction holds at most `capacity` bytes that have not been received.
std::pair<std::unique_ptr<Connection>, std::unique_ptr<Connection>> make_pair(Reactor& reactor,
                                                                              std::size_t capacity);

}  // namespace rmem::transport
