// SPDX-License-Identifier: MIT
// /dev/rmem_control: the daemon's channel to the module.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "base/result.hh"
#include "base/unique_fd.hh"
#include "kchan/kernel_channel.hh"
#include "kchan/ring.hh"

namespace rmem::kchan {

inline constexpr const char* kControlPath = "/dev/rmem_control";
inline constexpr const char* kRegionPath = "/dev/rmem";

// One open control file with its ring. The daemon counts as alive to the
// kernel for as long as this object lives: the descriptor is close-on-exec and
// is never handed out but for epoll and as netlink's proof of authority.
class Device final : public KernelChannel {
 public:
  // Opens the device, agrees on the version and maps the ring. kNotFound: the
  // module is absent; kPermission: neither root nor group rmem.
  static Result<std::unique_ptr<Device>> open(std::uint32_t ring_entries);
  ~Device() override;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  // Readable while the ring is not empty. Not to be stored or passed on.
  int fd() const { return fd_.get(); }
  Ring& ring() { return *ring_; }

  int serve(std::uint32_t region) override;
  int push(std::uint32_t region) override;
  int fill_zeros(std::uint64_t cookie, std::uint64_t length, std::uint32_t flags) override;
  int fill(std::uint64_t cookie, std::uint64_t offset, std::span<const std::byte> bytes,
           std::uint32_t flags) override;
  bool fills_early() const override { return features_ & RMEM_FEATURE_EARLY; }
  bool receives() const override { return features_ & RMEM_FEATURE_RECEIVE; }
  Received receive(std::uint64_t cookie, std::uint64_t offset, std::uint64_t length, int socket,
                   std::uint32_t flags, const std::optional<std::uint32_t>& checksum) override;
  // A cookie leaves its highest bit to others.
  bool asks() const override { return features_ & RMEM_FEATURE_LANE && generation_ >> 31 == 0; }
  int lane(std::uint32_t region, const Lane& lane, bool& takes) override;
  LaneEnd end_lane(std::uint32_t region, std::span<std::byte> header) override;
  int complete(std::span<const std::uint64_t> cookies, int error) override;
  int write_out(std::uint64_t cookie, std::span<std::byte> into, std::span<rmem_run> runs,
                std::uint64_t& bytes, std::uint32_t& run_count) override;
  bool sends() const override { return features_ & RMEM_FEATURE_SEND; }
  int write_runs(std::uint64_t cookie, std::span<rmem_write_run> runs,
                 std::uint32_t& run_count) override;
  Sent send(std::uint32_t region, std::uint64_t offset, std::uint64_t length, int socket) override;
  int prefetch(std::uint32_t region, std::uint64_t offset, std::uint64_t length,
               std::uint32_t flags, std::uint32_t& queued) override;
  int set_state(std::uint32_t region, std::uint32_t state, std::string_view reason) override;

 private:
  explicit Device(UniqueFd fd) : fd_(std::move(fd)) {}

  UniqueFd fd_;
  std::uint64_t features_ = 0;
  std::uint32_t generation_ = 0;
  std::span<std::byte> mapping_;
  std::unique_ptr<Ring> ring_;
};

// The version of the ioctls that the module speaks, if that is ours; 0 if it is
// another. kNotFound and kPermission as of Device::open().
Result<unsigned> uapi_major();

// A region's file, for what a program would do with it. These calls block as a
// program's would, some of them on the daemon itself: never make them on the
// daemon's reactor thread.

// /dev/rmem_control, as an authority for netlink.
Result<UniqueFd> open_control();
// The region's file, for reading.
Result<UniqueFd> open_region(const std::string& name);
// Calls `use` for every run of bytes of the region `fd` that is not durable, in
// rising order; its first failure ends the walk. They can be read at once.
Status for_each_unsafe(int fd, const std::function<Status(const rmem_run&)>& use);

// Makes everything written so far durable. The errno is the one fsync(2) gave.
Status sync_region(const std::string& name);
// Evicts every clean page.
Status drop_region(const std::string& name);

// The name of the region whose file is at `path`; nothing where another file
// is, or none. Does not wait.
std::optional<std::string> region_at(const std::string& path);

}  // namespace rmem::kchan
