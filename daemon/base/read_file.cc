// SPDX-License-Identifier: MIT
#include "base/read_file.hh"

#include <unistd.h>

#include <cerrno>

namespace rmem {

ssize_t read_to_end(int fd, std::span<std::byte> into) {
  std::size_t have = 0;
  while (have < into.size()) {
    const ssize_t got = ::read(fd, into.data() + have, into.size() - have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -1;
    if (got == 0) break;
    have += static_cast<std::size_t>(got);
  }
  return static_cast<ssize_t>(have);
}

}  // namespace rmem
