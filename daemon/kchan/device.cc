// SPDX-License-Identifier: MIT
#include "kchan/device.hh"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "kchan/errors.hh"

namespace rmem::kchan {
namespace {

// 0 or the positive errno. A signal may not make a call fail.
template <class Argument>
int call(int fd, unsigned long request, Argument& argument) {
  argument.size = sizeof(argument);
  int r;
  do {
    r = ::ioctl(fd, request, &argument);
  } while (r < 0 && errno == EINTR);
  return r < 0 ? errno : 0;
}

std::uint64_t address(const void* p) { return reinterpret_cast<std::uintptr_t>(p); }

Result<UniqueFd> open_device(const char* path, int flags) {
  UniqueFd fd(::open(path, flags | O_CLOEXEC));
  if (fd) return fd;
  const int err = errno;
  // ENXIO: a node left behind by a module that is gone.
  if (err == ENOENT || err == ENXIO || err == ENODEV) {
    return module_absent(std::string(path) + ": " + std::strerror(err));
  }
  if (err == EACCES || err == EPERM) {
    return Status(Code::kPermission, std::string(path) + ": " + std::strerror(err),
                  "run as root or as a member of group rmem", err);
  }
  return module_error(err, path);
}

// Opens the region `name` for reading and runs `use` on its descriptor.
template <class Use>
Status with_region(const std::string& name, Use use) {
  const auto fd = open_region(name);
  if (!fd.ok()) return fd.status();
  const int err = use(fd->get());
  return err == 0 ? Status() : module_error(err, "region " + name);
}

}  // namespace

Result<UniqueFd> open_control() { return open_device(kControlPath, O_RDWR); }

Result<UniqueFd> open_region(const std::string& name) {
  auto fd = open_device(kRegionPath, O_RDONLY);
  if (!fd.ok()) return fd.status();
  rmem_ioc_attach attach{};
  if (name.size() >= sizeof(attach.name)) return module_error(EINVAL, name);
  std::memcpy(attach.name, name.data(), name.size());
  if (const int err = call(fd->get(), RMEM_IOC_ATTACH, attach)) {
    return module_error(err, "region " + name);
  }
  return fd;
}

Result<std::unique_ptr<Device>> Device::open(std::uint32_t ring_entries) {
  auto fd = open_control();
  if (!fd.ok()) return fd.status();
  std::unique_ptr<Device> device(new Device(std::move(*fd)));

  rmem_ioc_setup setup{};
  setup.ring_entries = ring_entries;
  setup.uapi_major = RMEM_UAPI_MAJOR;
  setup.uapi_minor = RMEM_UAPI_MINOR;
  setup.features =
      RMEM_FEATURE_RECEIVE | RMEM_FEATURE_SEND | RMEM_FEATURE_LANE | RMEM_FEATURE_EARLY;
  if (const int err = call(device->fd_.get(), RMEM_IOC_SETUP, setup)) {
    return module_error(err, std::string(kControlPath) + ": interface version " +
                                 std::to_string(RMEM_UAPI_MAJOR) + "." +
                                 std::to_string(RMEM_UAPI_MINOR));
  }
  device->features_ = setup.features;
  device->generation_ = setup.generation;
  void* memory =
      ::mmap(nullptr, setup.ring_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, device->fd_.get(), 0);
  if (memory == MAP_FAILED) {
    return module_error(errno, std::string(kControlPath) + ": mapping the ring");
  }
  device->mapping_ = {static_cast<std::byte*>(memory), setup.ring_bytes};
  auto ring = Ring::open(device->mapping_);
  if (!ring.ok()) return ring.status();
  device->ring_ = std::make_unique<Ring>(*ring);
  return device;
}

Device::~Device() {
  ring_.reset();
  if (!mapping_.empty()) ::munmap(mapping_.data(), mapping_.size());
}

int Device::serve(std::uint32_t region) {
  rmem_ioc_region argument{};
  argument.region_id = region;
  return call(fd_.get(), RMEM_IOC_SERVE, argument);
}

int Device::push(std::uint32_t region) {
  rmem_ioc_region argument{};
  argument.region_id = region;
  return call(fd_.get(), RMEM_IOC_PUSH, argument);
}

int Device::fill_zeros(std::uint64_t cookie, std::uint64_t length, std::uint32_t flags) {
  rmem_ioc_fill argument{};
  argument.flags = flags | RMEM_FILL_ZERO;
  argument.cookie = cookie;
  argument.length = length;
  return call(fd_.get(), RMEM_IOC_FILL, argument);
}

int Device::fill(std::uint64_t cookie, std::uint64_t offset, std::span<const std::byte> bytes,
                 std::uint32_t flags) {
  rmem_ioc_fill argument{};
  argument.flags = flags;
  argument.cookie = cookie;
  argument.offset = offset;
  argument.length = bytes.size();
  argument.addr = address(bytes.data());
  return call(fd_.get(), RMEM_IOC_FILL, argument);
}

Device::Received Device::receive(std::uint64_t cookie, std::uint64_t offset, std::uint64_t length,
                                 int socket, std::uint32_t flags,
                                 const std::optional<std::uint32_t>& checksum) {
  rmem_ioc_receive argument{};
  argument.flags = flags | (checksum ? RMEM_RECEIVE_CHECKSUM : 0);
  argument.cookie = cookie;
  argument.offset = offset;
  argument.length = length;
  argument.fd = socket;
  argument.checksum = checksum.value_or(0);
  const int err = call(fd_.get(), RMEM_IOC_RECEIVE, argument);
  return {argument.received, err, static_cast<int>(argument.error)};
}

int Device::lane(std::uint32_t region, const Lane& lane, bool& takes) {
  rmem_ioc_lane argument{};
  argument.region_id = region;
  argument.fd = lane.socket;
  argument.lane = lane.number;
  argument.message = address(lane.message.data());
  argument.message_bytes = static_cast<std::uint32_t>(lane.message.size());
  argument.cookie_at = lane.cookie_at;
  argument.offset_at = lane.offset_at;
  argument.length_at = lane.length_at;
  argument.checksum_at = lane.checksum_at;
  argument.at_once = lane.at_once;
  if (!lane.answer.empty()) {
    argument.flags = RMEM_LANE_TAKE;
    argument.answer = address(lane.answer.data());
    argument.answer_mask = address(lane.answer_mask.data());
    argument.answer_bytes = static_cast<std::uint32_t>(lane.answer.size());
    argument.answer_cookie_at = lane.answer_cookie_at;
    argument.answer_offset_at = lane.answer_offset_at;
    argument.answer_length_at = lane.answer_length_at;
    argument.answer_payload_at = lane.answer_payload_at;
    argument.answer_sum_at = lane.answer_sum_at;
    argument.answer_checksum_at = lane.answer_checksum_at;
  }
  const int err = call(fd_.get(), RMEM_IOC_LANE, argument);
  takes = err == 0 && argument.flags & RMEM_LANE_TAKE;
  return err;
}

Device::LaneEnd Device::end_lane(std::uint32_t region, std::span<std::byte> header) {
  rmem_ioc_lane argument{};
  argument.region_id = region;
  argument.fd = -1;
  argument.answer = address(header.data());
  argument.answer_bytes = static_cast<std::uint32_t>(header.size());
  if (call(fd_.get(), RMEM_IOC_LANE, argument) != 0) return {};
  return {std::min<std::size_t>(argument.answer_bytes, header.size()), argument.taken,
          (argument.flags & RMEM_LANE_DAMAGED) != 0};
}

int Device::complete(std::span<const std::uint64_t> cookies, int error) {
  constexpr std::size_t kMost = 4096;  // per call, as the uapi says
  while (!cookies.empty()) {
    const auto batch = cookies.first(std::min(cookies.size(), kMost));
    rmem_ioc_complete argument{};
    argument.error = static_cast<std::uint32_t>(error);
    argument.count = static_cast<std::uint32_t>(batch.size());
    argument.cookies = address(batch.data());
    if (const int err = call(fd_.get(), RMEM_IOC_COMPLETE, argument)) return err;
    cookies = cookies.subspan(batch.size());
  }
  return 0;
}

int Device::write_out(std::uint64_t cookie, std::span<std::byte> into, std::span<rmem_run> runs,
                      std::uint64_t& bytes, std::uint32_t& run_count) {
  rmem_ioc_writeout argument{};
  argument.cookie = cookie;
  argument.addr = address(into.data());
  argument.addr_bytes = into.size();
  argument.runs = address(runs.data());
  argument.run_count = static_cast<std::uint32_t>(runs.size());
  const int err = call(fd_.get(), RMEM_IOC_WRITEOUT, argument);
  bytes = argument.bytes;
  run_count = argument.run_count;
  return err;
}

int Device::write_runs(std::uint64_t cookie, std::span<rmem_write_run> runs,
                       std::uint32_t& run_count) {
  rmem_ioc_runs argument{};
  argument.cookie = cookie;
  argument.runs = address(runs.data());
  argument.run_count = static_cast<std::uint32_t>(runs.size());
  const int err = call(fd_.get(), RMEM_IOC_RUNS, argument);
  run_count = argument.run_count;
  return err;
}

Device::Sent Device::send(std::uint32_t region, std::uint64_t offset, std::uint64_t length,
                          int socket) {
  rmem_ioc_send argument{};
  argument.region_id = region;
  argument.fd = socket;
  argument.offset = offset;
  argument.length = length;
  const int err = call(fd_.get(), RMEM_IOC_SEND, argument);
  return {argument.sent, err, static_cast<int>(argument.error)};
}

int Device::prefetch(std::uint32_t region, std::uint64_t offset, std::uint64_t length,
                     std::uint32_t flags, std::uint32_t& queued) {
  rmem_ioc_prefetch argument{};
  argument.flags = flags;
  argument.region_id = region;
  argument.offset = offset;
  argument.length = length;
  const int err = call(fd_.get(), RMEM_IOC_PREFETCH, argument);
  queued = argument.queued;
  return err;
}

int Device::set_state(std::uint32_t region, std::uint32_t state, std::string_view reason) {
  rmem_ioc_state argument{};
  argument.region_id = region;
  argument.state = state;
  const std::size_t length = std::min(reason.size(), sizeof(argument.reason) - 1);
  std::memcpy(argument.reason, reason.data(), length);
  return call(fd_.get(), RMEM_IOC_STATE, argument);
}

Result<unsigned> uapi_major() {
  // A channel of its own, gone at once: daemons do not notice.
  auto fd = open_device(kControlPath, O_RDWR);
  if (!fd.ok()) return fd.status();
  rmem_ioc_setup setup{};
  setup.ring_entries = 64;
  setup.uapi_major = RMEM_UAPI_MAJOR;
  const int err = call(fd->get(), RMEM_IOC_SETUP, setup);
  if (err == EOPNOTSUPP) return 0u;
  if (err != 0) return module_error(err, kControlPath);
  return unsigned{setup.uapi_major};
}

Status sync_region(const std::string& name) {
  return with_region(name, [](int fd) { return ::fsync(fd) == 0 ? 0 : errno; });
}

Status drop_region(const std::string& name) {
  return with_region(name, [](int fd) {
    rmem_ioc_range all{};
    return call(fd, RMEM_IOC_DROP, all);
  });
}

Status for_each_unsafe(int fd, const std::function<Status(const rmem_run&)>& use) {
  std::array<rmem_run, 1024> runs;
  rmem_ioc_unsafe unsafe{};
  do {
    unsafe.runs = address(runs.data());
    unsafe.run_count = runs.size();
    if (const int err = call(fd, RMEM_IOC_UNSAFE, unsafe)) {
      return module_error(err, "what is not durable");
    }
    for (std::uint32_t i = 0; i < unsafe.run_count && i < runs.size(); ++i) {
      if (Status s = use(runs[i]); !s.ok()) return s;
    }
  } while (unsafe.run_count == runs.size());
  return Status();
}

std::optional<std::string> region_at(const std::string& path) {
  // Regular files only: an ioctl on somebody's device might do something.
  struct stat st;
  if (::stat(path.c_str(), &st) != 0 || !S_ISREG(st.st_mode)) return std::nullopt;
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  rmem_ioc_info info{};
  if (!fd || call(fd.get(), RMEM_IOC_INFO, info) != 0) return std::nullopt;
  return std::string(info.name, ::strnlen(info.name, sizeof(info.name)));
}

}  // namespace rmem::kchan
