// SPDX-License-Identifier: MIT
#include <fcntl.h>
#include <linux/rmem.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <thread>

#include "base/unique_fd.hh"
#include "client.hh"
#include "peer.hh"

namespace rmem::bench {
namespace {

class RmemPeer final : public MappedPeer {
 public:
  RmemPeer(std::string region, UniqueFd fd, bool writable, std::uint64_t size,
           std::optional<ctl::Daemon> pulls)
      : MappedPeer("rmem:" + region + (pulls ? "+pull" : ""), size),
        region_(std::move(region)),
        fd_(std::move(fd)),
        writable_(writable),
        pulls_(std::move(pulls)) {}

  Status start() { return map(fd_.get(), writable_); }

  bool can(Case which) const override {
    if (pulls_) return which == Case::kSequential || is_random(which);
    return writable_ || (which != Case::kWrite && !overwrites(which));
  }

  Status prepare(Case which) override {
    if (Status over = pull_is_over(); !over.ok()) return over;
    if (writable_)
      if (Status flushed = flush(); !flushed.ok()) return flushed;
    if (finds_all(which)) {
      (void)touch_all();
      return which == Case::kResident ? unmap_pages() : Status();
    }
    rmem_ioc_range all{};
    all.size = sizeof all;
    if (::ioctl(fd_.get(), RMEM_IOC_DROP, &all) != 0)
      return Status::from_errno(errno, name() + ": drop");
    return Status();
  }

  Status begin(Case) override {
    if (!pulls_) return Status();
    return pulls_->call({{"verb", "pull"}, {"name", region_}}, kPatience).status();
  }

 protected:
  Status flush() override {
    return ::fsync(fd_.get()) == 0 ? Status() : Status::from_errno(errno, name() + ": fsync");
  }

 private:
  static constexpr std::chrono::minutes kPatience{10};

  // Nothing of it comes into what is measured next.
  Status pull_is_over() {
    while (pulls_) {
      const auto status = pulls_->call({{"verb", "status"}}, kPatience);
      if (!status.ok()) return status.status();
      bool pulling = false;
      for (const auto& region : status->value("regions", nlohmann::json::array()))
        pulling = pulling || (region.value("name", "") == region_ && region.contains("pull"));
      if (!pulling) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return Status();
  }

  std::string region_;
  UniqueFd fd_;
  bool writable_;
  std::optional<ctl::Daemon> pulls_;
};

}  // namespace

Result<std::unique_ptr<Peer>> rmem_peer(const std::string& path, std::uint64_t size,
                                        const std::string& pull_by) {
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
  std::optional<ctl::Daemon> pulls;
  if (!pull_by.empty()) {
    auto daemon = ctl::Daemon::connect(pull_by);
    if (!daemon) return daemon.status();
    pulls = std::move(daemon).value();
  }
  auto peer =
      std::make_unique<RmemPeer>(std::string(info.name, ::strnlen(info.name, sizeof info.name)),
                                 std::move(fd), writable, size, std::move(pulls));
  if (Status started = peer->start(); !started.ok()) return started;
  return std::unique_ptr<Peer>(std::move(peer));
}

}  // namespace rmem::bench
