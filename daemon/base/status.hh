// SPDX-License-Identifier: MIT
// Errors as values: what failed, why, and what to do next.
#pragma once

#include <string>
#include <string_view>
#include <utility>

namespace rmem {

// The exit codes of every program of rmem; one vocabulary for errors inside
// them, on the control socket and at the shell. The numbers are a contract.
enum class Code : int {
  kOk = 0,
  kFailed = 1,
  kUsage = 2,
  kNotFound = 3,
  kPermission = 4,
  kTimeout = 5,
  kBusy = 6,
  kUnreachable = 7,
  kCorrupt = 8,
  kPaused = 9,
};

// "ok", "failed", "usage", ...: the name used in JSON errors.
std::string_view code_name(Code code);

// The outcome of an operation. Copyable, cheap when ok, never thrown.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string cause, std::string hint = {}, int err = 0)
      : code_(code), err_(err), cause_(std::move(cause)), hint_(std::move(hint)) {}

  // `what: strerror(err)` with the code that base/errno.cc maps `err` to.
  static Status from_errno(int err, std::string what);

  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  // The errno behind it, or 0.
  int err() const { return err_; }
  // One line for people: the thing and the cause. Empty when ok.
  const std::string& cause() const { return cause_; }
  // The next step, or empty.
  const std::string& hint() const { return hint_; }

  // The same error with `what: ` in front of its cause.
  Status with_context(std::string_view what) const;
  Status with_hint(std::string hint) const;

 private:
  Code code_ = Code::kOk;
  int err_ = 0;
  std::string cause_;
  std::string hint_;
};

}  // namespace rmem
