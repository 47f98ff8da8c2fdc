// SPDX-License-Identifier: MIT
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <iostream>
#include <thread>
#include <vector>

#include "base/cli.hh"
#include "base/unique_fd.hh"
#include "link.hh"
#include "peer.hh"

namespace rmem::bench {
namespace {

std::uint64_t address(const void* at) { return reinterpret_cast<std::uint64_t>(at); }

// The threads sleep in read(2) of the userfaultfd, without a poll(2) before it.
// An event wakes all of them, one gets it.
class UffdPeer final : public MappedPeer {
 public:
  UffdPeer(const std::string& name, std::vector<Link> links, std::uint64_t size, std::size_t unit)
      : MappedPeer(name, size), unit_(unit), links_(std::move(links)) {}

  ~UffdPeer() override {
    // Each fault on pages that are nobody's tells one thread to go.
    stopping_ = true;
    for (std::size_t i = 0; i < handlers_.size(); ++i)
      (void)*static_cast<volatile std::byte*>(bells_ + i * kPage);
    for (std::thread& handler : handlers_) handler.join();
    if (bells_ != nullptr) ::munmap(bells_, links_.size() * kPage);
  }

  Status start() {
    fd_.reset(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC)));
    if (!fd_) return Status::from_errno(errno, "userfaultfd");
    uffdio_api api{};
    api.api = UFFD_API;
    api.features = UFFD_FEATURE_PAGEFAULT_FLAG_WP;
    if (::ioctl(fd_.get(), UFFDIO_API, &api) != 0)
      return Status::from_errno(errno, "userfaultfd: write-protection");
    if (Status mapped = map(-1, true); !mapped.ok()) return mapped;
    (void)::madvise(memory().data(), memory().size(), MADV_NOHUGEPAGE);
    if (Status watched = watch(memory().data(), memory().size(), true); !watched.ok())
      return watched;
    const std::size_t bells = links_.size() * kPage;
    void* const at =
        ::mmap(nullptr, bells, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return Status::from_errno(errno, "mmap");
    bells_ = static_cast<std::byte*>(at);
    if (Status watched = watch(bells_, bells, false); !watched.ok()) return watched;
    for (Link& link : links_) handlers_.emplace_back([this, &link] { handle(link); });
    return Status();
  }

  bool can(Case which) const override { return which != Case::kResident; }

  Status prepare(Case which) override {
    if (which != Case::kWrite) return unmap_pages();
    (void)touch_all();
    return protect(memory().data(), memory().size(), true);
  }

 private:
  Status watch(void* at, std::size_t bytes, bool writes) {
    uffdio_register area{};
    area.range = {address(at), bytes};
    area.mode = UFFDIO_REGISTER_MODE_MISSING | (writes ? UFFDIO_REGISTER_MODE_WP : 0);
    if (::ioctl(fd_.get(), UFFDIO_REGISTER, &area) != 0)
      return Status::from_errno(errno, "UFFDIO_REGISTER");
    return Status();
  }

  Status protect(void* at, std::size_t bytes, bool on) {
    uffdio_writeprotect area{};
    area.range = {address(at), bytes};
    area.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0;  // off: wakes who waits, too
    if (::ioctl(fd_.get(), UFFDIO_WRITEPROTECT, &area) != 0)
      return Status::from_errno(errno, "UFFDIO_WRITEPROTECT");
    return Status();
  }

  Status copy(std::byte* to, std::span<const std::byte> from) {
    uffdio_copy what{};
    what.dst = address(to);
    what.src = address(from.data());
    what.len = from.size();
    if (::ioctl(fd_.get(), UFFDIO_COPY, &what) == 0) return Status();
    if (errno != EEXIST) return Status::from_errno(errno, "UFFDIO_COPY");
    // Another thread has brought it, for another page of the unit.
    uffdio_range range = {what.dst, what.len};
    if (::ioctl(fd_.get(), UFFDIO_WAKE, &range) != 0)
      return Status::from_errno(errno, "UFFDIO_WAKE");
    return Status();
  }

  Status resolve(const uffd_msg& event, Link& link, std::span<std::byte> buffer) {
    auto* const at = reinterpret_cast<std::byte*>(event.arg.pagefault.address & ~(kPage - 1));
    if (event.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) return protect(at, kPage, false);
    const std::size_t offset = static_cast<std::size_t>(at - memory().data()) / unit_ * unit_;
    const auto unit = buffer.first(std::min(unit_, memory().size() - offset));
    if (Status got = link.read(offset, unit); !got.ok()) return got;
    return copy(memory().data() + offset, unit);
  }

  void handle(Link& link) {
    std::vector<std::byte> buffer(unit_);
    while (true) {
      uffd_msg event;
      Status done;
      if (::read(fd_.get(), &event, sizeof event) != sizeof event) {
        if (errno == EINTR) continue;
        done = Status::from_errno(errno, "userfaultfd");
      } else if (stopping_) {
        (void)copy(reinterpret_cast<std::byte*>(event.arg.pagefault.address & ~(kPage - 1)),
                   std::span(buffer).first(kPage));
        return;
      } else {
        done = resolve(event, link, buffer);
      }
      if (done.ok()) continue;
      // Whoever waits for the page can only be told by the end of the program.
      std::_Exit(cli::fail("rmem-bench", done.with_context(name())));
    }
  }

  const std::size_t unit_;
  std::vector<Link> links_;
  UniqueFd fd_;
  std::byte* bells_ = nullptr;
  std::atomic<bool> stopping_ = false;
  std::vector<std::thread> handlers_;
};

}  // namespace

Result<std::unique_ptr<Peer>> uffd_peer(const std::string& name, const transport::Address& server,
                                        std::uint64_t size, std::size_t unit, unsigned handlers) {
  std::vector<Link> links;
  for (unsigned i = 0; i < handlers; ++i) {
    auto link = Link::connect(server);
    if (!link) return link.status();
    links.push_back(std::move(link).value());
  }
  auto peer = std::make_unique<UffdPeer>(name, std::move(links), size, unit);
  if (Status started = peer->start(); !started.ok()) return started;
  return std::unique_ptr<Peer>(std::move(peer));
}

}  // namespace rmem::bench
