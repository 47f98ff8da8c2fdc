// SPDX-License-Identifier: MIT
// The peer FUSE: a file system of one file, whose bytes are a server's.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/status.hh"
#include "transport/address.hh"

namespace rmem::bench {

struct FuseOptions {
  transport::Address server;
  std::uint64_t size = 0;             // bytes of the file
  unsigned threads = 4;               // each with a connection of its own
  std::size_t readahead = 128 << 10;  // bytes; the kernel's own limit may be lower
};

// Mounts it at `directory`, where the file is called `pattern', calls `ready`, and serves it until
// it is unmounted or a signal comes.
Status mount_fuse(const std::string& directory, const FuseOptions& options,
                  const std::function<void()>& ready);

}  // namespace rmem::bench
