// SPDX-License-Identifier: MIT
#include "store/local_fs.hh"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/units.hh"

namespace rmem::store {
Result<FileFacts> facts_of(int fd, const std::string& path) {
  struct statx info = {};
  if (::statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &info) != 0)
    return Status::from_errno(errno, path);
  FileFacts facts;
  char* real = ::realpath(path.c_str(), nullptr);
  if (real == nullptr) return Status::from_errno(errno, path);
  facts.path = real;
  std::free(real);
  facts.device = std::uint64_t{info.stx_dev_major} << 32 | info.stx_dev_minor;
  facts.inode = info.stx_ino;
  if (info.stx_mask & STATX_BTIME) {
    std::string nanoseconds = std::to_string(info.stx_btime.tv_nsec);
    nanoseconds.insert(0, 9 - nanoseconds.size(), '0');
    facts.birth = std::to_string(info.stx_btime.tv_sec) + "." + nanoseconds;
  }
  facts.size = info.stx_size;
  return facts;
}

Status expect_same(const std::string& path, const std::string& what, std::uint64_t has,
                   std::uint64_t asked) {
  if (has == asked) return Status();
  return Status(Code::kCorrupt,
                path + ": its " + what + " is " + format_size(has) + ", not " + format_size(asked),
                "leave out ?" + what + "= to use it as it is, or use another path");
}

std::uint64_t hash(std::string_view text, std::uint64_t seed) {
  std::uint64_t h = 0xcbf29ce484222325 ^ seed;
  for (const char c : text) h = (h ^ static_cast<std::uint8_t>(c)) * 0x100000001b3;
  h = (h ^ (h >> 33)) * 0xff51afd7ed558ccd;
  h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53;
  return h ^ (h >> 33);
}

Uuid uuid_from(std::string_view text) {
  const std::uint64_t halves[2] = {hash(text, 1), hash(text, 2)};
  Uuid uuid;
  std::memcpy(uuid.data(), halves, sizeof halves);
  uuid[6] = (uuid[6] & 0x0f) | 0x80;  // version 8: of our own making
  uuid[8] = (uuid[8] & 0x3f) | 0x80;
  return uuid;
}

int store_errno(int err) {
  switch (err) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return ENOSPC;
    case EROFS:
    case EINVAL:
      return err;
    default:
      return EIO;
  }
}

int read_all(int fd, std::span<std::byte> into, std::uint64_t offset) {
  while (!into.empty()) {
    const ssize_t count = ::pread(fd, into.data(), into.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno;
    if (count == 0) return EIO;  // somebody has cut the file short
    into = into.subspan(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
  return 0;
}

int write_all(int fd, std::span<const std::byte> from, std::uint64_t offset) {
  while (!from.empty()) {
    const ssize_t count = ::pwrite(fd, from.data(), from.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno;
    if (count == 0) return EIO;
    from = from.subspan(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
  return 0;
}

int zero_range(int fd, std::uint64_t offset, std::uint64_t length) {
  if (::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                  static_cast<off_t>(length)) == 0)
    return 0;
  if (errno != EOPNOTSUPP && errno != ENOSYS) return errno;
  static constexpr std::array<std::byte, 256 << 10> kZeros{};
  while (length > 0) {
    const std::size_t piece = std::min<std::uint64_t>(kZeros.size(), length);
    if (const int err = write_all(fd, std::span(kZeros).first(piece), offset); err != 0) return err;
    offset += piece;
    length -= piece;
  }
  return 0;
}

}  // namespace rmem::store
