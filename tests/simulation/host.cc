// SPDX-License-Identifier: MIT
#include "simulation/host.hh"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>

#include "base/workers.hh"
#include "store/local_fs.hh"

namespace rmem::sim {
namespace {

Host* g_host = nullptr;
// When the one alarm of the reactor shall ring, and whose it is.
std::optional<Time> g_alarm;
int g_alarm_fd = -1;

constexpr std::size_t kPage = 4096;

}  // namespace

Host::Host(std::uint64_t seed, std::string disk_file)
    : chance(seed), disk_file_(std::move(disk_file)) {
  struct stat info = {};
  if (::stat(disk_file_.c_str(), &info) != 0) std::abort();
  disk_inode_ = info.st_ino;
  safe_ = read_disk();
  g_alarm.reset();
  g_host = this;
}

Host::~Host() { g_host = nullptr; }

Host* Host::current() { return g_host; }

bool Host::is_disk(int fd) const {
  struct stat info = {};
  return ::fstat(fd, &info) == 0 && info.st_ino == disk_inode_;
}

std::vector<std::byte> Host::read_disk() const {
  std::ifstream file(disk_file_, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  const auto* first = reinterpret_cast<const std::byte*>(bytes.data());
  return {first, first + bytes.size()};
}

void Host::flushed() {
  const Safe safe;
  safe_ = read_disk();
}

void Host::reset_disk() {
  const Safe safe;
  mix(true);
  ++life;
}

void Host::lost_unflushed() {
  const Safe safe;
  mix(true);
}

void Host::mix(bool maybe_keep) {
  auto now_there = read_disk();
  for (std::size_t at = 0; at < now_there.size(); at += kPage) {
    if (maybe_keep && chance.one_in(2)) continue;
    std::memcpy(&now_there[at], &safe_[at], kPage);
  }
  std::ofstream(disk_file_, std::ios::binary | std::ios::in)
      .write(reinterpret_cast<const char*>(now_there.data()),
             static_cast<std::streamsize>(now_there.size()));
  safe_ = std::move(now_there);
}

}  // namespace rmem::sim

using rmem::sim::g_alarm;
using rmem::sim::g_alarm_fd;
using rmem::sim::g_host;
using rmem::sim::Host;

namespace {

bool fails(Host::Call kind, int err) {
  if (g_host == nullptr || !g_host->fails(kind)) return false;
  errno = err;
  return true;
}

}  // namespace

// --- calls of the C library ----------------------------------------------------

extern "C" {

int clock_gettime(clockid_t clock, timespec* now) noexcept {
  if (g_host == nullptr || clock == CLOCK_REALTIME)
    return static_cast<int>(::syscall(SYS_clock_gettime, clock, now));
  now->tv_sec = g_host->now.count() / 1'000'000'000;
  now->tv_nsec = g_host->now.count() % 1'000'000'000;
  return 0;
}

int timerfd_settime(int fd, int flags, const itimerspec* when, itimerspec* old) noexcept {
  if (g_host == nullptr)
    return static_cast<int>(::syscall(SYS_timerfd_settime, fd, flags, when, old));
  g_alarm = g_host->now + std::chrono::seconds(when->it_value.tv_sec) +
            std::chrono::nanoseconds(when->it_value.tv_nsec);
  g_alarm_fd = fd;
  return 0;
}

int epoll_wait(int epoll, epoll_event* events, int most, int timeout) {
  const auto wait = [&](int so_long) {
    return static_cast<int>(
        ::syscall(SYS_epoll_pwait, epoll, events, most, so_long, nullptr, sizeof(sigset_t)));
  };
  if (g_host == nullptr) return wait(timeout);
  ++g_host->turns;
  int count = wait(0);
  if (count != 0 || timeout == 0) return count;
  if (!g_alarm) {
    std::fprintf(stderr, "simulation: nothing will ever happen again\n");
    std::abort();
  }
  g_host->now = std::max(g_host->now, *g_alarm);
  g_alarm.reset();
  itimerspec at_once = {};
  at_once.it_value.tv_nsec = 1;
  ::syscall(SYS_timerfd_settime, g_alarm_fd, 0, &at_once, nullptr);
  while (count == 0) count = wait(-1);
  return count;
}

ssize_t getrandom(void* into, size_t length, unsigned flags) {
  if (g_host == nullptr) return ::syscall(SYS_getrandom, into, length, flags);
  auto* to = static_cast<unsigned char*>(into);
  for (size_t i = 0; i < length; ++i)
    to[i] = static_cast<unsigned char>(g_host->chance.next() >> 32);
  return static_cast<ssize_t>(length);
}

ssize_t pwrite(int fd, const void* from, size_t length, off_t offset) {
  if (fails(Host::Call::kFile, ENOSPC)) return -1;
  if (g_host != nullptr && g_host->write_fails_one_in != 0 && g_host->is_disk(fd) &&
      g_host->chance.one_in(g_host->write_fails_one_in)) {
    errno = g_host->write_error;
    return -1;
  }
  return ::syscall(SYS_pwrite64, fd, from, length, offset);
}

int fdatasync(int fd) {
  if (fails(Host::Call::kFile, EIO)) {
    g_host->lost_unflushed();
    return -1;
  }
  if (g_host == nullptr || !g_host->is_disk(fd))
    return static_cast<int>(::syscall(SYS_fdatasync, fd));
  if (g_host->flush_fails_one_in != 0 && g_host->chance.one_in(g_host->flush_fails_one_in)) {
    g_host->lost_unflushed();
    errno = EIO;
    return -1;
  }
  g_host->flushed();
  return 0;
}

// Those that only count, and fail when they are told to.
#define RMEM_SIM_CALL(kind, err, type, name, parameters, ...)                                 \
  type name parameters {                                                                      \
    if (fails(Host::Call::kind, err)) return -1;                                              \
    static const auto real = reinterpret_cast<type(*) parameters>(::dlsym(RTLD_NEXT, #name)); \
    return real(__VA_ARGS__);                                                                 \
  }

RMEM_SIM_CALL(kDescriptor, EMFILE, int, socket, (int a, int b, int c) noexcept, a, b, c)
RMEM_SIM_CALL(kDescriptor, EMFILE, int, accept4, (int a, sockaddr* b, socklen_t* c, int d), a, b, c,
              d)
RMEM_SIM_CALL(kDescriptor, EMFILE, int, eventfd, (unsigned a, int b) noexcept, a, b)
RMEM_SIM_CALL(kSocket, ENOMEM, int, epoll_ctl, (int a, int b, int c, epoll_event* d) noexcept, a, b,
              c, d)
RMEM_SIM_CALL(kSocket, ECONNREFUSED, int, connect, (int a, const sockaddr* b, socklen_t c), a, b, c)
RMEM_SIM_CALL(kSocket, ENOBUFS, int, listen, (int a, int b) noexcept, a, b)
RMEM_SIM_CALL(kSocket, ECONNRESET, ssize_t, send, (int a, const void* b, size_t c, int d), a, b, c,
              d)
RMEM_SIM_CALL(kSocket, ECONNRESET, ssize_t, sendmsg, (int a, const msghdr* b, int c), a, b, c)
RMEM_SIM_CALL(kSocket, ECONNRESET, ssize_t, recv, (int a, void* b, size_t c, int d), a, b, c, d)
RMEM_SIM_CALL(kSocket, ECONNRESET, ssize_t, recvmsg, (int a, msghdr* b, int c), a, b, c)
RMEM_SIM_CALL(kFile, EIO, ssize_t, pread, (int a, void* b, size_t c, off_t d), a, b, c, d)
RMEM_SIM_CALL(kFile, EIO, ssize_t, preadv2, (int a, const iovec* b, int c, off_t d, int e), a, b, c,
              d, e)
RMEM_SIM_CALL(kFile, EIO, ssize_t, write, (int a, const void* b, size_t c), a, b, c)
RMEM_SIM_CALL(kFile, EIO, int, fsync, (int a), a)
RMEM_SIM_CALL(kFile, ENOSPC, int, rename, (const char* a, const char* b) noexcept, a, b)

}  // extern "C"

// --- parts of the programs -----------------------------------------------------

namespace rmem::store {

std::uint64_t local_epoch(std::uint64_t losses) {
  const std::uint64_t life = sim::g_host != nullptr ? sim::g_host->life : 1;
  return life << 20 | (losses + 1);
}

}  // namespace rmem::store

namespace rmem {
namespace {

// Jobs of all servers, by their Workers; each is carried out after a time of its own, and
// heard of after another.
struct Late {
  Late(Reactor& reactor, Workers* owner, Workers::Job* job)
      : owner(owner), job(job), timer(reactor, [this] { ran ? over() : run(); }) {
    arm();
  }
  void arm() {
    sim::Host& host = *sim::Host::current();
    timer.arm(host.chance.between(sim::Time(0), host.job_most / 2));
  }
  void run();
  void over();
  Workers* owner;
  Workers::Job* job;
  bool ran = false;  // and the reactor has not heard of it yet
  Reactor::Timer timer;
};
std::list<Late> g_late;

void Late::run() {
  // On a worker an exception would be the end of the program.
  [this]() noexcept { job->run(*job); }();
  ran = true;
  const sim::Host::Safe safe;
  arm();
}

void Late::over() {
  Workers::Job* const mine = job;
  g_late.remove_if([this](const Late& one) { return &one == this; });
  mine->done(*mine);
}

}  // namespace

Result<std::unique_ptr<Workers>> Workers::create(Reactor& reactor, unsigned) {
  return std::unique_ptr<Workers>(new Workers(reactor, UniqueFd()));
}

Workers::Workers(Reactor& reactor, UniqueFd event) : reactor_(reactor), event_(std::move(event)) {}

Workers::~Workers() {
  g_late.remove_if([this](const Late& one) { return one.owner == this; });
}

void Workers::submit(Job& job, When) {
  const sim::Host::Safe safe;
  g_late.emplace_back(reactor_, this, &job);
}

void Workers::on_events(std::uint32_t) {}

}  // namespace rmem
