// SPDX-License-Identifier: MIT
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/unique_fd.hh"
#include "peer.hh"

namespace rmem::bench {
namespace {

class FilePeer final : public MappedPeer {
 public:
  FilePeer(const std::string& name, UniqueFd fd, std::uint64_t size)
      : MappedPeer(name, size), fd_(std::move(fd)) {}

  Status start() {
    struct stat st;
    if (::fstat(fd_.get(), &st) != 0) return Status::from_errno(errno, name());
    device_ = S_ISBLK(st.st_mode);
    std::uint64_t has = static_cast<std::uint64_t>(st.st_size);
    if (device_ && ::ioctl(fd_.get(), BLKGETSIZE64, &has) != 0)
      return Status::from_errno(errno, name());
    if (has < size())
      return Status(Code::kUsage, name() + " has " + std::to_string(has) + " bytes, not " +
                                      std::to_string(size()));
    return map(fd_.get(), true);
  }

  bool can(Case) const override { return true; }

  Status prepare(Case which) override {
    if (Status flushed = flush(); !flushed.ok()) return flushed;
    // Whoever means to read page by page says so; others leave the kernel its read-ahead.
    const int advice = is_random(which) ? POSIX_MADV_RANDOM : POSIX_MADV_NORMAL;
    if (::posix_madvise(memory().data(), memory().size(), advice) != 0)
      return Status(Code::kFailed, name() + ": madvise");
    if (finds_all(which)) {
      (void)touch_all();
      return which == Case::kResident ? unmap_pages() : Status();
    }
    // Pages that are mapped stay.
    if (Status unmapped = unmap_pages(); !unmapped.ok()) return unmapped;
    if (device_ ? ::ioctl(fd_.get(), BLKFLSBUF) != 0
                : ::posix_fadvise(fd_.get(), 0, 0, POSIX_FADV_DONTNEED) != 0)
      return Status::from_errno(errno, name() + ": drop");
    return Status();
  }

 protected:
  Status flush() override {
    return ::fsync(fd_.get()) == 0 ? Status() : Status::from_errno(errno, name() + ": fsync");
  }

 private:
  UniqueFd fd_;
  bool device_ = false;
};

}  // namespace

Result<std::unique_ptr<Peer>> file_peer(const std::string& name, const std::string& path,
                                        std::uint64_t size) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd) return Status::from_errno(errno, path);
  auto peer = std::make_unique<FilePeer>(name, std::move(fd), size);
  if (Status started = peer->start(); !started.ok()) return started;
  return std::unique_ptr<Peer>(std::move(peer));
}

}  // namespace rmem::bench
