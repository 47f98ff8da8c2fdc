// SPDX-License-Identifier: MIT
#include "base/status.hh"

#include <system_error>

#include "base/errno.hh"

namespace rmem {

std::string_view code_name(Code code) {
  switch (code) {
    case Code::kOk:
      return "ok";
    case Code::kFailed:
      return "failed";
    case Code::kUsage:
      return "usage";
    case Code::kNotFound:
      return "not-found";
    case Code::kPermission:
      return "permission";
    case Code::kTimeout:
      return "timeout";
    case Code::kBusy:
      return "busy";
    case Code::kUnreachable:
      return "unreachable";
    case Code::kCorrupt:
      return "corrupt";
    case Code::kPaused:
      return "paused";
  }
  return "failed";
}

Status Status::from_errno(int err, std::string what) {
  what += ": ";
  what += std::generic_category().message(err);
  return Status(code_from_errno(err), std::move(what), {}, err);
}

Status Status::with_context(std::string_view what) const {
  Status with = *this;
  if (!ok()) with.cause_ = std::string(what) + ": " + cause_;
  return with;
}

Status Status::with_hint(std::string hint) const {
  Status with = *this;
  if (!ok()) with.hint_ = std::move(hint);
  return with;
}

}  // namespace rmem
