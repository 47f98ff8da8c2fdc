// SPDX-License-Identifier: MIT
// The only place of rmemctl that speaks to the daemon and to the kernel.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.hh"
#include "base/unique_fd.hh"
#include "kchan/netlink.hh"

namespace rmem::ctl {

// One connection to rmemd's control socket.
class Daemon {
 public:
  // kUnreachable: no daemon there; kPermission: the socket is not for us.
  static Result<Daemon> connect(const std::string& socket_path);

  // Sends `request`, waits for its reply at most `patience`. The reply's members
  // when it is "ok"; the daemon's error as Status when it is not; kTimeout when
  // the daemon is silent, kUnreachable when it goes away meanwhile.
  Result<nlohmann::json> call(const nlohmann::json& request, std::chrono::milliseconds patience);

 private:
  Daemon(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
  Status went_away() const;

  std::string path_;
  UniqueFd fd_;
  std::string in_;
};

// What the kernel says about regions; an interface for tests.
class Regions {
 public:
  virtual ~Regions() = default;
  virtual Result<std::vector<kchan::RegionInfo>> list() = 0;
  // kNotFound: there is no such region, or the caller may not see it.
  virtual Result<kchan::RegionInfo> get(const std::string& name) = 0;
  // Without the daemon; both need to open /dev/rmem_control for writing.
  virtual Result<std::uint64_t> unmake_by_force(std::uint32_t id) = 0;  // bytes that were lost
  virtual Status abort(std::uint32_t id) = 0;
};

// kNotFound: the module is absent.
Result<std::unique_ptr<Regions>> kernel_regions();

}  // namespace rmem::ctl
