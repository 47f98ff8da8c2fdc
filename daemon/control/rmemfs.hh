// SPDX-License-Identifier: MIT
// Regions as files: rmemfs mounted at a place of its own.
#pragma once

#include <string>

#include "base/result.hh"

namespace rmem::control {

// Mounts rmemfs at `directory`, made if need be (0755). False: it was mounted
// there already, by a service or by a predecessor.
Result<bool> mount_rmemfs(const std::string& directory);

// Unmounts what an rmemd has mounted there; a mount of somebody else stays. Files
// that programs have open stay open; bind mounts of single files stay.
Status unmount_rmemfs(const std::string& directory);

}  // namespace rmem::control
