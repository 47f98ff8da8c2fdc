// SPDX-License-Identifier: MIT
#include "wire/errors.hh"

#include <cerrno>

#include "wire/messages.hh"

namespace rmem::wire {
namespace {

constexpr struct {
  std::uint32_t wire;
  int err;
} kMap[] = {
    {0, 0},
    {error::kPerm, EPERM},
    {error::kNoEntry, ENOENT},
    {error::kIo, EIO},
    {error::kAccess, EACCES},
    {error::kBusy, EBUSY},
    {error::kInvalid, EINVAL},
    {error::kTooManyHandles, EMFILE},
    {error::kNoSpace, ENOSPC},
    {error::kReadOnly, EROFS},
    {error::kProtocol, EPROTO},
    {error::kBadMessage, EBADMSG},
    {error::kMessageSize, EMSGSIZE},
    {error::kVersion, EPROTONOSUPPORT},
    {error::kNotOffered, EOPNOTSUPP},
    {error::kTimedOut, ETIMEDOUT},
    {error::kStale, ESTALE},
};

}  // namespace

int errno_from_wire(std::uint32_t error) {
  for (const auto& entry : kMap)
    if (entry.wire == error) return entry.err;
  return EIO;
}

std::uint32_t wire_from_errno(int err) {
  // To whoever waits for space these are one thing.
  if (err == EDQUOT || err == EFBIG) return error::kNoSpace;
  for (const auto& entry : kMap)
    if (entry.err == err) return entry.wire;
  return error::kIo;
}

}  // namespace rmem::wire
