// SPDX-License-Identifier: MIT
// The one map between the protocol's error numbers and errno.
#pragma once

#include <cstdint>

namespace rmem::wire {

// EIO for a number that the protocol does not know.
int errno_from_wire(std::uint32_t error);

// EIO for an errno that the protocol does not know.
std::uint32_t wire_from_errno(int err);

}  // namespace rmem::wire
