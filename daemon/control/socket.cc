// SPDX-License-Identifier: MIT
#include "control/socket.hh"

#include <fcntl.h>
#include <grp.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "base/log.hh"

namespace rmem::control {
namespace {

constexpr const char* kGroup = "rmem";
constexpr const char* kRunDirectory = "/run/rmem";

const log::Source kLog{"control"};

std::optional<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) return std::nullopt;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

bool is_live(const sockaddr_un& address) {
  const UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe) return false;
  const auto* a = reinterpret_cast<const sockaddr*>(&address);
  // EAGAIN: somebody listens, but has no time.
  return ::connect(probe.get(), a, sizeof(address)) == 0 || errno == EAGAIN;
}

Status busy(const std::string& path) {
  return Status(Code::kBusy, path + ": another rmemd is running",
                "stop it, or give this one another --socket and --instance");
}

// 0660 for the group, or 0600 for the owner alone.
void set_access(const std::string& path) {
  const group* g = ::getgrnam(kGroup);
  if (g && ::chown(path.c_str(), static_cast<uid_t>(-1), g->gr_gid) == 0) {
    if (::chmod(path.c_str(), 0660) == 0) return;
  }
  if (!g) {
    kLog.warning("there is no group `{}': only the owner may use {}", kGroup, path);
  } else {
    kLog.warning("{} cannot be given to group `{}': {}", path, kGroup, std::strerror(errno));
  }
  ::chmod(path.c_str(), 0600);
}

}  // namespace

bool Peer::in_group(unsigned group) const {
  return gid == group || std::find(groups.begin(), groups.end(), group) != groups.end();
}

Result<ControlSocket> ControlSocket::listen(const std::string& path) {
  const auto address = address_of(path);
  if (!address) {
    return Status(Code::kUsage, "--socket: `" + path + "' is empty or too long",
                  "at most " + std::to_string(sizeof(sockaddr_un::sun_path) - 1) + " bytes");
  }
  if (path.starts_with(std::string(kRunDirectory) + "/")) {
    if (::mkdir(kRunDirectory, 0755) == 0) {
      ::chmod(kRunDirectory, 0755);  // whatever the umask says
    } else if (errno != EEXIST) {
      return Status::from_errno(errno, kRunDirectory);
    }
  }
  UniqueFd lock(::open((path + ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock) return Status::from_errno(errno, path + ".lock");
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) return busy(path);
  if (is_live(*address)) return busy(path);  // by somebody without the lock

  struct stat old;
  if (::lstat(path.c_str(), &old) == 0) {
    if (!S_ISSOCK(old.st_mode)) {
      return Status(Code::kFailed, path + ": exists and is not a socket", "remove it");
    }
    ::unlink(path.c_str());
  }
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return Status::from_errno(errno, "control socket");
  const mode_t before = ::umask(0177);  // nobody slips in before its mode is set
  const auto* a = reinterpret_cast<const sockaddr*>(&*address);
  const int bound = ::bind(fd.get(), a, sizeof(*address));
  const int err = errno;
  ::umask(before);
  if (bound != 0) return Status::from_errno(err, path);
  set_access(path);
  if (::listen(fd.get(), 64) != 0) return Status::from_errno(errno, path);
  return ControlSocket(path, std::move(lock), std::move(fd));
}

ControlSocket::~ControlSocket() {
  // The lock file stays: removing it would let two daemons hold two locks.
  if (fd_) ::unlink(path_.c_str());
}

Result<Peer> ControlSocket::peer_of(int connection) {
  ucred credentials{};
  socklen_t length = sizeof(credentials);
  if (::getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
    return Status::from_errno(errno, "SO_PEERCRED");
  }
  Peer peer{credentials.uid, credentials.gid, {}, credentials.pid};
  peer.groups.resize(64);
  length = static_cast<socklen_t>(peer.groups.size() * sizeof(gid_t));
  if (::getsockopt(connection, SOL_SOCKET, SO_PEERGROUPS, peer.groups.data(), &length) != 0) {
    length = 0;  // more than we care for, or an old kernel: the primary one counts
  }
  peer.groups.resize(length / sizeof(gid_t));
  return peer;
}

}  // namespace rmem::control
