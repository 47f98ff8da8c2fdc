// SPDX-License-Identifier: MIT
// The one map from errno to rmem's codes.
#pragma once

#include "base/status.hh"

namespace rmem {

// `err` is a positive errno; one that says nothing in particular is kFailed.
Code code_from_errno(int err);

}  // namespace rmem
