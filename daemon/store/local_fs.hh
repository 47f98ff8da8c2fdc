// SPDX-License-Identifier: MIT
// What the stores on a file system of this host have in common.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.hh"
#include "base/uuid.hh"

namespace rmem::store {

// What tells one file or directory from another that later takes its name.
struct FileFacts {
  std::string path;  // real path
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::string birth;  // "seconds.nanoseconds"; empty if the file system keeps none
  std::uint64_t size = 0;
  // Of a store that keeps an identity of its own: which it is.
  std::optional<Uuid> identity;
};

// Of an open file or directory, which was opened as `path`.
Result<FileFacts> facts_of(int fd, const std::string& path);

// Ok if both are the same, else kCorrupt; `what` is "size" or "chunk".
Status expect_same(const std::string& path, const std::string& what, std::uint64_t has,
                   std::uint64_t asked);

// A number that is a function of both: FNV-1a with a final avalanche. Not for secrets.
std::uint64_t hash(std::string_view text, std::uint64_t seed);

// A UUID that is a function of `text`. Not for secrets.
Uuid uuid_from(std::string_view text);

// The durability epoch of this host's boot and this process after so many possible
// losses: stores opened, flushes failed; never 0. The kernel tells about a failed
// write-back only once and may have dropped the pages, so a later flush that succeeds
// says nothing about them.
std::uint64_t local_epoch(std::uint64_t losses);

// `err` as a client can make something of it: out of Outcome's dictionary.
int store_errno(int err);

// The following return 0 or an errno and may block. What ends early without an
// error is EIO.
int read_all(int fd, std::span<std::byte> into, std::uint64_t offset);
int write_all(int fd, std::span<const std::byte> from, std::uint64_t offset);
// Punches a hole, or writes zeros where the file system knows none.
int zero_range(int fd, std::uint64_t offset, std::uint64_t length);

}  // namespace rmem::store
