// SPDX-License-Identifier: MIT
// What rmemd is told, by its command line and by rmemd.toml(5).
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/config_file.hh"
#include "control/options.hh"
#include "store/remote.hh"

namespace rmem::control {

inline constexpr const char* kDefaultConfig = "/etc/rmem/rmemd.toml";

struct Config {
  std::string socket = kDefaultSocket;
  std::string instance = kDefaultInstance;
  std::string state_dir = kDefaultStateDir;
  // To push what was written in, after a signal; the rest waits in the kernel.
  std::chrono::milliseconds stop_timeout{10'000};
  // Of regions that are attached from now on, where whoever attaches does not say.
  AttachOptions defaults;
  // Pages that are late are asked for on the other connection, too.
  bool hedge = false;
  // What a region does not say itself: compression, TLS, connections.
  store::RemoteOptions remote{.compression = store::Compression::kAuto};
};

// The words for it.
std::vector<std::pair<std::string, store::Compression>> compressions();

// Every key of the file, and where its value goes.
config::Table keys(Config& config);

// What is in `next` and cannot be had while rmemd runs as `now`: keys of the file.
std::vector<std::string_view> fixed_changes(const Config& now, const Config& next);

}  // namespace rmem::control
