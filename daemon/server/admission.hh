// SPDX-License-Identifier: MIT
// Who may connect at all: how many, and how many of one host. Pure logic.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <unordered_map>

namespace rmem::server {

class Admission {
 public:
  struct Limits {
    std::size_t connections = 4096;
    // 0: no more limit than that.
    std::size_t per_host = 0;
    // Of one host, that have not opened an export yet.
    std::size_t unopened_per_host = 256;
  };

  explicit Admission(const Limits& limits) : limits_(limits) {}
  // Those that are there stay.
  void set_limits(const Limits& limits) { limits_ = limits; }

  // Empty: it is counted from now on. Otherwise why it may not come in.
  std::string_view enter(const std::string& host);
  // It has opened an export.
  void opened(const std::string& host);
  void leave(const std::string& host, bool had_opened);

 private:
  struct Count {
    std::size_t all = 0;
    std::size_t unopened = 0;
  };
  Limits limits_;
  std::size_t all_ = 0;
  std::unordered_map<std::string, Count> hosts_;
};

}  // namespace rmem::server
