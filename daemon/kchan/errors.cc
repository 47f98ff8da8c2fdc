// SPDX-License-Identifier: MIT
#include "kchan/errors.hh"

#include <cerrno>
#include <cstring>

namespace rmem::kchan {
namespace {

struct Meaning {
  int err;
  Code code;
  const char* text;  // null: strerror
  const char* hint;
};

constexpr Meaning kMeanings[] = {
    {EINVAL, Code::kUsage, "the module refuses the value", "check name, size and chunk"},
    {E2BIG, Code::kFailed, "the module is older than this program",
     "use programs and module of one release"},
    {EOPNOTSUPP, Code::kFailed, "the module does not know this feature or version",
     "use programs and module of one release"},
    {ENOENT, Code::kNotFound, "no such region", "rmemctl status lists the regions"},
    {ENODEV, Code::kNotFound, "the region was detached", nullptr},
    {EEXIST, Code::kBusy, "a region of this name exists", "detach it first or take another name"},
    {EBUSY, Code::kBusy, "in use",
     "close the programs that have it open or mapped, then try again"},
    {EACCES, Code::kPermission, "the region's owner, group and mode do not allow it",
     "ask its owner, or whoever attached it, for --owner or --mode"},
    {EPERM, Code::kPermission, nullptr, "run as root or as a member of group rmem"},
    {EROFS, Code::kPermission, "the region is read-only", nullptr},
    {ENOTCONN, Code::kFailed, "this daemon does not serve the region", nullptr},
    {ENOSPC, Code::kFailed, "the store is full", "free space at the server, then sync again"},
    {EIO, Code::kFailed, "the store failed, or the deadline passed",
     "rmemctl status shows the region's state; what was written stays dirty"},
    {ESTALE, Code::kCorrupt, "the region has failed: its store or its writer claim is another's",
     "rmemctl status --json tells the reason"},
    {ENOMEM, Code::kFailed, nullptr, "try again"},
};

}  // namespace

Status module_error(int err, std::string what) {
  for (const Meaning& m : kMeanings) {
    if (m.err != err) continue;
    return Status(m.code, std::move(what) + ": " + (m.text ? m.text : std::strerror(err)),
                  m.hint ? m.hint : "", err);
  }
  return Status(Code::kFailed, std::move(what) + ": " + std::strerror(err), {}, err);
}

Status module_absent(std::string cause) {
  return Status(Code::kNotFound, "the rmem module is not loaded (" + std::move(cause) + ")",
                "modprobe rmem, or insmod build/kmod/$(uname -r)/rmem.ko where it was built",
                ENODEV);
}

}  // namespace rmem::kchan
