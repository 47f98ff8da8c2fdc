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
#include <deque>
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
  // `links`: one for each handler, one to push by, one to fill by.
  UffdPeer(const std::string& name, std::vector<Link> links, std::uint64_t size,
           const UffdOptions& options)
      : MappedPeer(name, size),
        unit_(options.unit),
        fill_(options.fill),
        handlers_count_(options.handlers),
        links_(std::move(links)),
        dirty_(size / kPage),
        taken_((size + options.unit - 1) / options.unit) {}

  ~UffdPeer() override {
    stop_filling();
    // Each fault on pages that are nobody's tells one thread to go.
    stopping_ = true;
    for (std::size_t i = 0; i < handlers_.size(); ++i)
      (void)*static_cast<volatile std::byte*>(bells_ + i * kPage);
    for (std::thread& handler : handlers_) handler.join();
    if (bells_ != nullptr) ::munmap(bells_, handlers_count_ * kPage);
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
    const std::size_t bells = handlers_count_ * kPage;
    void* const at =
        ::mmap(nullptr, bells, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return Status::from_errno(errno, "mmap");
    bells_ = static_cast<std::byte*>(at);
    if (Status watched = watch(bells_, bells, false); !watched.ok()) return watched;
    for (unsigned i = 0; i < handlers_count_; ++i)
      handlers_.emplace_back([this, i] { handle(links_[i]); });
    return Status();
  }

  bool can(Case which) const override {
    return fill_ ? which == Case::kSequential || is_random(which) : which != Case::kResident;
  }

  Status prepare(Case which) override {
    stop_filling();
    for (auto& taken : taken_) taken = false;
    tracking_ = overwrites(which);
    if (!finds_all(which)) return unmap_pages();
    (void)touch_all();
    return which == Case::kWarm ? Status() : protect(memory().data(), memory().size(), true);
  }

  Status begin(Case) override {
    if (fill_) filler_ = std::thread([this] { or_die(fill()); });
    return Status();
  }

 protected:
  // Write-protected before it is sent: what is stored meanwhile is dirty again.
  Status flush() override {
    std::size_t sent = 0;
    for (std::size_t page = 0; page < dirty_.size();) {
      std::size_t end = page;
      while (end < dirty_.size() && end - page < kRun / kPage && dirty_[end].exchange(false)) ++end;
      if (end == page) {
        ++page;
        continue;
      }
      const auto run = memory().subspan(page * kPage, (end - page) * kPage);
      if (Status p = protect(run.data(), run.size(), true); !p.ok()) return p;
      if (Status given = pushes().give(page * kPage, run); !given.ok()) return given;
      ++sent;
      page = end;
    }
    for (; sent > 0; --sent)
      if (Status has = pushes().acknowledged(); !has.ok()) return has;
    return Status();
  }

 private:
  static constexpr std::size_t kRun = 1 << 20;    // bytes pushed at most as one
  static constexpr std::size_t kAhead = 4 << 20;  // bytes the filler asks for before they are there

  Link& pushes() { return links_[handlers_count_]; }
  Link& fills() { return links_[handlers_count_ + 1]; }

  void or_die(const Status& done) const {
    // Whoever waits for a page can only be told by the end of the program.
    if (!done.ok()) std::_Exit(cli::fail("rmem-bench", done.with_context(name())));
  }

  Status fill() {
    const std::size_t units = (memory().size() + unit_ - 1) / unit_;
    const auto unit = [&](std::size_t i) {
      return memory().subspan(i * unit_, std::min(unit_, memory().size() - i * unit_));
    };
    std::vector<std::byte> buffer(unit_);
    std::deque<std::size_t> asked;
    std::size_t next = 0;
    while (true) {
      for (; next < units && asked.size() < kAhead / unit_ && !enough_; ++next) {
        if (taken_[next].exchange(true)) continue;
        if (Status s = fills().ask(next * unit_, unit(next).size()); !s.ok()) return s;
        asked.push_back(next);
      }
      if (asked.empty()) return Status();
      const auto to = unit(asked.front());
      asked.pop_front();
      const auto bytes = std::span(buffer).first(to.size());
      if (Status s = fills().receive(bytes); !s.ok()) return s;
      if (enough_) continue;
      if (Status s = copy(to.data(), bytes, false); !s.ok()) return s;
    }
  }

  void stop_filling() {
    if (!filler_.joinable()) return;
    enough_ = true;
    filler_.join();
    enough_ = false;
  }

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

  Status copy(std::byte* to, std::span<const std::byte> from, bool protected_from_stores) {
    uffdio_copy what{};
    what.mode = protected_from_stores ? UFFDIO_COPY_MODE_WP : 0;
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
    const std::size_t page = static_cast<std::size_t>(at - memory().data()) / kPage;
    if (event.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) {
      dirty_[page] = true;
      return protect(at, kPage, false);
    }
    const std::size_t offset = page * kPage / unit_ * unit_;
    const auto unit = buffer.first(std::min(unit_, memory().size() - offset));
    // The filler has asked for it; when it comes it wakes who waits.
    if (fill_ && taken_[offset / unit_].exchange(true)) return Status();
    if (Status got = link.read(offset, unit); !got.ok()) return got;
    // The page that is stored to is dirty at once, the rest of the unit is not.
    const bool stored = tracking_ && (event.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE);
    if (stored) dirty_[page] = true;
    const bool all = stored && unit_ == kPage;
    if (Status copied = copy(memory().data() + offset, unit, tracking_ && !all); !copied.ok())
      return copied;
    return stored && !all ? protect(at, kPage, false) : Status();
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
                   std::span(buffer).first(kPage), false);
        return;
      } else {
        done = resolve(event, link, buffer);
      }
      or_die(done);
    }
  }

  const std::size_t unit_;
  const bool fill_;
  const unsigned handlers_count_;
  std::vector<Link> links_;
  std::vector<std::atomic<bool>> dirty_;  // a page each
  std::vector<std::atomic<bool>> taken_;  // a unit each: asked for, where there is a filler
  std::atomic<bool> tracking_ = false;    // what is dirty will be asked for
  std::thread filler_;
  std::atomic<bool> enough_ = false;  // the filler is to end
  UniqueFd fd_;
  std::byte* bells_ = nullptr;
  std::atomic<bool> stopping_ = false;
  std::vector<std::thread> handlers_;
};

}  // namespace

Result<std::unique_ptr<Peer>> uffd_peer(const std::string& name, const transport::Address& server,
                                        std::uint64_t size, const UffdOptions& options) {
  auto links = Link::connect(server, options.handlers + 2);
  if (!links) return links.status();
  auto peer = std::make_unique<UffdPeer>(name, std::move(links).value(), size, options);
  if (Status started = peer->start(); !started.ok()) return started;
  return std::unique_ptr<Peer>(std::move(peer));
}

}  // namespace rmem::bench
