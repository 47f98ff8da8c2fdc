// SPDX-License-Identifier: MIT
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <span>

namespace rmem {

// Reads until the end of the file or until `into` is full. How many bytes; or -1, and errno.
ssize_t read_to_end(int fd, std::span<std::byte> into);

}  // namespace rmem
