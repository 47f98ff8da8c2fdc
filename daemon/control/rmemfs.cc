// SPDX-License-Identifier: MIT
#include "control/rmemfs.hh"

#include <sys/mount.h>
#include <sys/stat.h>

#include <cerrno>
#include <fstream>
#include <optional>
#include <sstream>

namespace rmem::control {
namespace {

// What rmemd's own mounts name as their source. Those of others, a systemd mount
// unit for instance, are theirs to unmount.
constexpr const char* kSource = "rmemd";

// The source of the rmemfs that is the uppermost mount at `directory`, or nothing
// if that is none. From mountinfo: "ID PARENT MAJOR:MINOR ROOT MOUNT-POINT OPTIONS
// [TAG]... - TYPE SOURCE OPTIONS".
std::optional<std::string> mounted_from(const std::string& directory) {
  std::ifstream mounts("/proc/self/mountinfo");
  std::optional<std::string> found;
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream words(line);
    std::string skip, point, word, type, source;
    words >> skip >> skip >> skip >> skip >> point;
    if (point != directory) continue;
    while (words >> word && word != "-") {
    }
    words >> type >> source;
    found = type == "rmemfs" ? std::optional(source) : std::nullopt;
  }
  return found;
}

}  // namespace

Result<bool> mount_rmemfs(const std::string& directory) {
  if (mounted_from(directory)) return false;
  if (::mkdir(directory.c_str(), 0755) != 0 && errno != EEXIST) {
    return Status::from_errno(errno, directory);
  }
  if (::mount(kSource, directory.c_str(), "rmemfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) !=
      0) {
    return Status::from_errno(errno, "mounting rmemfs at " + directory);
  }
  return true;
}

Status unmount_rmemfs(const std::string& directory) {
  if (mounted_from(directory) != kSource) return Status();
  if (::umount2(directory.c_str(), UMOUNT_NOFOLLOW) == 0) return Status();
  // Files are open in it. They keep working; the directory goes now.
  if (errno == EBUSY && ::umount2(directory.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) {
    return Status();
  }
  return Status::from_errno(errno, "unmounting " + directory);
}

}  // namespace rmem::control
