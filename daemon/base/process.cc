// SPDX-License-Identifier: MIT
#include "base/process.hh"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <sstream>
#include <string_view>

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

namespace rmem {
namespace {

bool has_capability(unsigned capability) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
  if (::syscall(SYS_capget, &header, data) != 0) return false;
  return data[capability / 32].effective >> (capability % 32) & 1;
}

// A number that the service manager left in the environment, if it is meant for
// this process: `pid_name` names the variable that says for which.
std::uint64_t from_manager(const char* name, const char* pid_name) {
  const auto number = [](const char* variable) -> std::optional<std::uint64_t> {
    const char* text = std::getenv(variable);
    if (text == nullptr) return std::nullopt;
    std::uint64_t value = 0;
    const char* end = text + std::strlen(text);
    const auto parsed = std::from_chars(text, end, value);
    if (parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
    return value;
  };
  const bool for_one = std::getenv(pid_name) != nullptr;
  if (for_one && number(pid_name) != static_cast<std::uint64_t>(::getpid())) return 0;
  return number(name).value_or(0);
}

// The whole of sd_notify(3) that is needed, without the library.
void notify(std::string_view message) {
  const char* path = std::getenv("NOTIFY_SOCKET");
  if (path == nullptr || (path[0] != '/' && path[0] != '@')) return;
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const std::size_t length = std::strlen(path);
  if (length >= sizeof address.sun_path) return;
  std::memcpy(address.sun_path, path, length);
  if (path[0] == '@') address.sun_path[0] = '\0';
  const UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) return;
  (void)::sendto(fd.get(), message.data(), message.size(), MSG_NOSIGNAL,
                 reinterpret_cast<const sockaddr*>(&address),
                 static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length));
}

}  // namespace

Status lock_memory() {
  rlimit limit = {};
  ::getrlimit(RLIMIT_MEMLOCK, &limit);
  if (limit.rlim_cur != RLIM_INFINITY && !has_capability(CAP_IPC_LOCK))
    return Status(Code::kPermission, "cannot lock memory: the limit is finite",
                  "run as root, grant CAP_IPC_LOCK, or set LimitMEMLOCK=infinity", EPERM);
  if (::mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0)
    return Status::from_errno(errno, "cannot lock memory");
  return Status();
}

Status set_io_flusher() {
  if (::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0)
    return Status::from_errno(errno, "PR_SET_IO_FLUSHER")
        .with_hint("run as root or grant CAP_SYS_RESOURCE");
  return Status();
}

void hide_memory() {
#ifndef RMEM_SANITIZED  // the leak checker traces its own process
  ::prctl(PR_SET_DUMPABLE, 0);
#endif
}

void raise_file_limit() {
  rlimit limit = {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

void announce_ready() {
  std::puts("ready");
  std::fflush(stdout);
  notify("READY=1");
}

void announce_stopping() { notify("STOPPING=1"); }

std::vector<PassedSocket> take_passed_sockets() {
  constexpr int kFirst = 3;
  constexpr std::uint64_t kMost = 64;
  std::vector<PassedSocket> sockets;
  // Here, other than for the watchdog, the pid has to be there.
  if (std::getenv("LISTEN_PID") != nullptr) {
    const std::uint64_t count = std::min(from_manager("LISTEN_FDS", "LISTEN_PID"), kMost);
    const char* const given = std::getenv("LISTEN_FDNAMES");
    std::istringstream names(given != nullptr ? given : "");
    for (int fd = kFirst; fd < kFirst + static_cast<int>(count); ++fd) {
      std::string name;
      std::getline(names, name, ':');
      if (::fcntl(fd, F_SETFD, FD_CLOEXEC) == 0) sockets.push_back({UniqueFd(fd), name});
    }
  }
  for (const char* name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) ::unsetenv(name);
  return sockets;
}

Watchdog::Watchdog(Reactor& reactor)
    : period_(from_manager("WATCHDOG_USEC", "WATCHDOG_PID")), timer_(reactor, [this] {
        notify("WATCHDOG=1");
        timer_.arm(period_ / 2);
      }) {
  if (period_.count() > 0) timer_.arm(std::chrono::seconds(0));
}

}  // namespace rmem
