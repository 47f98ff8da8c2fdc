// SPDX-License-Identifier: MIT
// A region's file over a path of the caller's (attach --bind). Everything here
// happens in the caller's mount namespace.
#pragma once

#include <string>

#include "base/result.hh"

namespace rmem::ctl {

// Where `path` is, absolute and without symbolic links, and whether something
// is there already. kUsage: a directory, or its parent is missing.
struct BindTarget {
  std::string path;
  bool exists = false;
};
Result<BindTarget> bind_target(const std::string& path);

// Is the region's file at `path` already?
bool is_bound(const std::string& name, const std::string& path);

// Puts it there, once; makes the empty file it needs if there is none.
Status bind_region(const std::string& name, const std::string& path);

// Takes the mount away if `mounted`, and the file below if `remove_file` and it
// is empty.
Status unbind(const std::string& path, bool mounted, bool remove_file);

}  // namespace rmem::ctl
