// SPDX-License-Identifier: MIT
#include <fcntl.h>
#include <linux/rmem.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/unique_fd.hh"
#include "peer.hh"

namespace rmem::bench {
namespace {

class RmemPeer final : public MappedPeer {
 public:
  RmemPeer(std::string name, UniqueFd fd, bool writable, std::uint64_t size)
      : MappedPeer(std::move(name), size), fd_(std::move(fd)), writable_(writable) {}

  Status start() { return map(fd_.get(), writable_); }

  bool can(Case which) const override { return which != Case::kWrite || writable_; }

  Status prepare(Case which) override {
    if (writable_ && ::fsync(fd_.get()) != 0) return Status::from_errno(errno, name() + ": fsync");
    if (which == Case::kResident || which == Case::kWrite) {
      (void)touch_all();
      return which == Case::kResident ? unmap_pages() : Status();
    }
    rmem_ioc_range all{};
    all.size = sizeof all;
    if (::ioctl(fd_.get(), RMEM_IOC_DROP, &all) != 0)
      return Status::from_errno(errno, name() + ": drop");
    return Status();
  }

 private:
  UniqueFd fd_;
  bool writable_;
};

}  // namespace

Result<std::unique_ptr<Peer>> rmem_peer(const std::string& path, std::uint64_t size) {
  bool writable = true;
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd && (errno == EROFS || errno == EACCES)) {
    writable = false;
    fd.reset(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  }
  if (!fd) return Status::from_errno(errno, path);
  rmem_ioc_info info{};
  info.size = sizeof info;
  if (::ioctl(fd.get(), RMEM_IOC_INFO, &info) != 0)
    return Status::from_errno(errno, path + " is no region of rmem");
  if (info.size_bytes != size)
    return Status(Code::kUsage, path + " has " + std::to_string(info.size_bytes) + " bytes, not " +
                                    std::to_string(size));
  const std::string name(info.name, ::strnlen(info.name, sizeof info.name));
  auto peer = std::make_unique<RmemPeer>("rmem:" + name, std::move(fd), writable, size);
  if (Status started = peer->start(); !started.ok()) return started;
  return std::unique_ptr<Peer>(std::move(peer));
}

}  // namespace rmem::bench
