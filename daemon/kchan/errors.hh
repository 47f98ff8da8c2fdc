// SPDX-License-Identifier: MIT
// The one map from the errno dictionary of linux/rmem.h to a Status.
#pragma once

#include <string>

#include "base/status.hh"

namespace rmem::kchan {

// `what: <meaning of err>` with the exit code and the next step that belong to
// `err` when it comes from the module. `err` is a positive errno.
Status module_error(int err, std::string what);

// The module is not loaded; `cause` is how it was noticed.
Status module_absent(std::string cause);

}  // namespace rmem::kchan
