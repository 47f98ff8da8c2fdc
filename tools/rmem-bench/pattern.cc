// SPDX-License-Identifier: MIT
#include "pattern.hh"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "base/bytes.hh"
#include "base/unique_fd.hh"

namespace rmem::bench {
namespace {

constexpr std::size_t kWord = sizeof(std::uint64_t);

// splitmix64, for its n-th number.
std::uint64_t word(std::uint64_t n) {
  std::uint64_t x = (n + 1) * 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace

void fill_pattern(std::span<std::byte> bytes, std::uint64_t first_page) {
  const std::uint64_t first = first_page * (kPage / kWord);
  for (std::size_t i = 0; i < bytes.size() / kWord; ++i)
    store_le(bytes.data() + i * kWord, word(first + i));
}

Status check_pattern(std::span<const std::byte> page, std::uint64_t index) {
  const std::uint64_t first = index * (kPage / kWord);
  for (std::size_t i = 0; i < page.size() / kWord; ++i) {
    if (load_le<std::uint64_t>(page.data() + i * kWord) != word(first + i))
      return Status(Code::kCorrupt, "page " + std::to_string(index) + " is wrong from byte " +
                                        std::to_string(i * kWord) + " on");
  }
  return Status();
}

Status make_pattern_file(const std::string& path, std::uint64_t size) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!fd) return Status::from_errno(errno, path);
  std::vector<std::byte> page(kPage);
  for (std::uint64_t at = 0; at < size; at += kPage) {
    fill_pattern(page, at / kPage);
    const ssize_t written = ::write(fd.get(), page.data(), page.size());
    if (written < 0) return Status::from_errno(errno, path);
    if (static_cast<std::size_t>(written) != page.size()) return Status::from_errno(ENOSPC, path);
  }
  return Status();
}

}  // namespace rmem::bench
