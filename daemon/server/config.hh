// SPDX-License-Identifier: MIT
// What rmem-server is told, by its command line and by rmem-server.toml(5).
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "base/config_file.hh"
#include "base/status.hh"
#include "server/server.hh"
#include "transport/address.hh"

namespace rmem::server {

inline constexpr const char* kDefaultConfig = "/etc/rmem/rmem-server.toml";

struct Config {
  std::vector<transport::Address> listen;
  ServerOptions options;
  // To end in, after a signal: for clients, and again for stores.
  std::chrono::milliseconds stop_timeout{10'000};
};

// Every key of the file, and where its value goes.
config::Table keys(Config& config);

// What is in `next` and cannot be had while the server runs as `now`: keys of the file.
std::vector<std::string_view> fixed_changes(const Config& now, const Config& next);

}  // namespace rmem::server
