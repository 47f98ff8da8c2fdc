// SPDX-License-Identifier: MIT
// Mapped memory in general, and the two floors that have nothing below them.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/unique_fd.hh"
#include "peer.hh"
#include "store/local_fs.hh"

namespace rmem::bench {
namespace {

void load(const std::byte& at) { (void)*static_cast<const volatile std::byte*>(&at); }

// The value stays: the pages still hold the pattern afterwards.
void store(std::byte& at) {
  volatile std::byte* const p = &at;
  *p = *p;
}

class AnonymousPeer final : public MappedPeer {
 public:
  explicit AnonymousPeer(std::uint64_t size) : MappedPeer("anon", size) {}

  Status start() {
    if (Status mapped = map(-1, true); !mapped.ok()) return mapped;
    // Pages of 4 KiB are what everybody else has.
    (void)::madvise(memory().data(), memory().size(), MADV_NOHUGEPAGE);
    return Status();
  }

  bool can(Case which) const override { return which == Case::kSequential || is_random(which); }
  Status prepare(Case) override { return unmap_pages(); }

  // A load would only map the one page of zeros.
  Status access(Case, std::span<const std::uint32_t> pages, unsigned) override {
    for (const std::uint32_t page : pages) store(memory()[page * kPage]);
    return Status();
  }

  Status check(std::uint32_t page, std::uint64_t) override {
    const auto bytes = memory().subspan(page * kPage, kPage);
    if (std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{}; }))
      return Status();
    return Status(Code::kCorrupt, "page " + std::to_string(page) + " of new memory is not zero");
  }
};

class TmpfsPeer final : public MappedPeer {
 public:
  TmpfsPeer(UniqueFd fd, std::uint64_t size) : MappedPeer("tmpfs", size), fd_(std::move(fd)) {}

  Status start() {
    if (Status mapped = map(fd_.get(), true); !mapped.ok()) return mapped;
    fill_pattern(memory(), 0);
    return Status();
  }

  // A file in memory is never clean.
  bool can(Case which) const override { return which != Case::kWrite && !overwrites(which); }
  Status prepare(Case which) override { return which == Case::kWarm ? touch_all() : unmap_pages(); }

 private:
  UniqueFd fd_;
};

}  // namespace

MappedPeer::~MappedPeer() {
  if (!memory_.empty()) ::munmap(memory_.data(), memory_.size());
}

Status MappedPeer::map(int fd, bool writable) {
  const int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
  void* at = ::mmap(nullptr, size(), PROT_READ | (writable ? PROT_WRITE : 0), flags, fd, 0);
  if (at == MAP_FAILED) return Status::from_errno(errno, name() + ": mmap");
  memory_ = {static_cast<std::byte*>(at), size()};
  file_ = fd;
  return Status();
}

Status MappedPeer::unmap_pages() {
  if (::madvise(memory_.data(), memory_.size(), MADV_DONTNEED) != 0)
    return Status::from_errno(errno, name() + ": madvise");
  return Status();
}

Status MappedPeer::touch_all() {
  for (std::size_t at = 0; at < memory_.size(); at += kPage) load(memory_[at]);
  return Status();
}

Status MappedPeer::access(Case which, std::span<const std::uint32_t> pages, unsigned) {
  if (which == Case::kWrite)
    for (const std::uint32_t page : pages) store(memory_[page * kPage]);
  else
    for (const std::uint32_t page : pages) load(memory_[page * kPage]);
  return Status();
}

Status MappedPeer::overwrite(Case which, std::span<const std::byte> bytes) {
  if (which == Case::kOverwrite && file_ >= 0) {
    if (const int err = rmem::store::write_all(file_, bytes, 0); err != 0)
      return Status::from_errno(err, name() + ": write");
    return flush();
  }
  for (std::size_t at = 0; at < bytes.size(); at += kPage)
    std::memcpy(memory_.data() + at, bytes.data() + at, kPage);
  return flush();
}

Status MappedPeer::check(std::uint32_t page, std::uint64_t expected) {
  return check_pattern(memory_.subspan(page * kPage, kPage), expected);
}

Result<std::unique_ptr<Peer>> anonymous_peer(std::uint64_t size) {
  auto peer = std::make_unique<AnonymousPeer>(size);
  if (Status started = peer->start(); !started.ok()) return started;
  return std::unique_ptr<Peer>(std::move(peer));
}

Result<std::unique_ptr<Peer>> tmpfs_peer(std::uint64_t size) {
  UniqueFd fd(::memfd_create("rmem-bench", MFD_CLOEXEC));
  if (!fd || ::ftruncate(fd.get(), static_cast<off_t>(size)) != 0)
    return Status::from_errno(errno, "tmpfs: memfd_create");
  auto peer = std::make_unique<TmpfsPeer>(std::move(fd), size);
  if (Status started = peer->start(); !started.ok()) return started;
  return std::unique_ptr<Peer>(std::move(peer));
}

}  // namespace rmem::bench
