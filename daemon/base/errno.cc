// SPDX-License-Identifier: MIT
#include "base/errno.hh"

#include <cerrno>

namespace rmem {

Code code_from_errno(int err) {
  switch (err) {
    case 0:
      return Code::kOk;
    case ENOENT:
    case ENODEV:
    case ENXIO:
    case ENOTDIR:
      return Code::kNotFound;
    case EACCES:
    case EPERM:
    case EROFS:
      return Code::kPermission;
    case ETIMEDOUT:
      return Code::kTimeout;
    case EBUSY:
    case EEXIST:
    case EADDRINUSE:
    case ETXTBSY:
      return Code::kBusy;
    case ECONNREFUSED:
    case ECONNRESET:
    case ECONNABORTED:
    case EPIPE:
    case ENOTCONN:
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH:
      return Code::kUnreachable;
    case EBADMSG:
    case ESTALE:
      return Code::kCorrupt;
    default:
      return Code::kFailed;
  }
}

}  // namespace rmem
