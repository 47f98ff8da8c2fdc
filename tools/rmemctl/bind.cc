// SPDX-License-Identifier: MIT
#include "bind.hh"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "base/unique_fd.hh"
#include "control/options.hh"
#include "kchan/device.hh"

namespace rmem::ctl {
namespace {

Status failed(int err, const std::string& path) {
  return Status::from_errno(err, "--bind " + path);
}

std::string region_file(const std::string& directory, const std::string& name) {
  return directory + "/" + name;
}

bool exists(const std::string& path) {
  struct stat st;
  return ::stat(path.c_str(), &st) == 0;
}

Status bind_file(const std::string& file, const std::string& path) {
  if (::mount(file.c_str(), path.c_str(), nullptr, MS_BIND, nullptr) != 0) {
    return failed(errno, path);
  }
  return Status();
}

// rmemd's mount of rmemfs may be invisible here, in another mount namespace.
// Then use one of our own, for just as long as it takes.
Status bind_through_own_mount(const std::string& name, const std::string& path) {
  char directory[] = "/run/rmem-bind-XXXXXX";
  if (!::mkdtemp(directory)) return failed(errno, path);
  Status status;
  if (::mount("rmemfs", directory, "rmemfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0) {
    status = failed(errno, path);
  } else {
    status = bind_file(region_file(directory, name), path);
    ::umount2(directory, MNT_DETACH);
  }
  ::rmdir(directory);
  return status;
}

}  // namespace

Result<BindTarget> bind_target(const std::string& path) {
  const auto usage = [&](const std::string& why) {
    return Status(Code::kUsage, "--bind " + path + ": " + why, "name a file, existing or not");
  };
  struct FreeIt {
    void operator()(char* p) const { ::free(p); }
  };
  using Resolved = std::unique_ptr<char, FreeIt>;
  if (const Resolved whole{::realpath(path.c_str(), nullptr)}) {
    struct stat st;
    if (::stat(whole.get(), &st) != 0) return failed(errno, path);
    if (!S_ISREG(st.st_mode)) return usage("not a regular file");
    return BindTarget{whole.get(), true};
  }
  if (errno != ENOENT) return failed(errno, path);
  const std::size_t slash = path.rfind('/');
  const std::string parent = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const std::string last = slash == std::string::npos ? path : path.substr(slash + 1);
  if (last.empty() || last == "." || last == "..") return usage("not a file name");
  const Resolved directory{::realpath(parent.c_str(), nullptr)};
  if (!directory) return usage(std::string("its directory: ") + std::strerror(errno));
  const std::string base = directory.get();
  return BindTarget{(base == "/" ? "" : base) + "/" + last, false};
}

bool is_bound(const std::string& name, const std::string& path) {
  return kchan::region_at(path) == name;
}

Status bind_region(const std::string& name, const std::string& path) {
  if (is_bound(name, path)) return Status();
  bool created = false;
  if (!exists(path)) {
    const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!fd) return failed(errno, path);
    created = true;
  }
  const std::string file = region_file(control::kRegionDirectory, name);
  Status status = exists(file) ? bind_file(file, path) : bind_through_own_mount(name, path);
  if (!status.ok() && created) ::unlink(path.c_str());
  return status;
}

Status unbind(const std::string& path, bool mounted, bool remove_file) {
  if (mounted && ::umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0) {
    return failed(errno, path);
  }
  struct stat st;
  if (remove_file && ::lstat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0) {
    if (::unlink(path.c_str()) != 0) return failed(errno, path);
  }
  return Status();
}

}  // namespace rmem::ctl
