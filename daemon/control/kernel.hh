// SPDX-License-Identifier: MIT
// The kernel's side of managing regions, as an interface for the verbs.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/reactor.hh"
#include "base/result.hh"
#include "kchan/device.hh"
#include "kchan/netlink.hh"

namespace rmem::control {

class Kernel {
 public:
  using Finished = std::function<void(const Status&)>;

  virtual ~Kernel() = default;

  // Short round trips.
  virtual Result<std::vector<kchan::RegionInfo>> list() = 0;
  virtual Result<kchan::RegionInfo> get(const std::string& name) = 0;
  virtual Result<kchan::Netlink::Made> make(const kchan::RegionInfo& wanted) = 0;
  virtual Status set_blob(std::uint32_t id, const std::string& blob) = 0;
  virtual Status unmake(std::uint32_t id) = 0;
  // Bytes that were lost.
  virtual Result<std::uint64_t> unmake_by_force(std::uint32_t id) = 0;
  // 0 or a positive errno.
  virtual int serve(std::uint32_t id) = 0;

  // What a program does with a region's file. These may last as long as the
  // region's timeouts, and wait for this very daemon; they run on a thread of
  // their own and call back on the reactor's.
  virtual void sync(const std::string& name, Finished done) = 0;
  virtual void drop(const std::string& name, Finished done) = 0;
};

// The module. `device` and `reactor` must outlive it.
Result<std::unique_ptr<Kernel>> module_kernel(Reactor& reactor, kchan::Device& device);

}  // namespace rmem::control
