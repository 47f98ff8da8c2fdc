// SPDX-License-Identifier: MIT
// Regions by generic netlink (rmem.yaml): the kernel's truth about what exists,
// in which state, with which counters; and the events.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.hh"
#include "base/status.hh"
#include "linux/rmem.h"
#include "linux/rmem_netlink.h"

struct nl_msg;
struct nl_sock;

namespace rmem::kchan {

using WriterId = std::array<std::uint8_t, RMEM_WRITER_SIZE>;

// One region as region-get tells it. Sizes in bytes, times in milliseconds.
struct RegionInfo {
  std::uint32_t id = 0;
  std::string name;
  std::uint64_t size = 0;
  std::uint32_t chunk = 0;
  std::uint8_t folio_order = 0;
  std::uint32_t flags = 0;  // RMEM_REGION_*
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t mode = 0;
  std::uint32_t fault_timeout_ms = 0;
  std::uint32_t sync_timeout_ms = 0;
  std::uint32_t on_loss = RMEM_ON_LOSS_WAIT;
  std::uint64_t resident_limit = 0;  // 0: none
  std::uint64_t dirty_limit = 0;     // likewise
  std::uint64_t push_threshold = 0;  // likewise
  std::string source;
  std::string instance;
  std::string blob;
  WriterId writer{};
  std::uint32_t state = RMEM_STATE_QUIESCED;
  std::string reason;
  std::uint32_t users = 0;
  std::optional<std::uint32_t> daemon_pid;
  std::uint32_t waiting = 0;
  std::uint64_t resident_bytes = 0;
  std::uint64_t dirty_bytes = 0;
  std::uint64_t writeback_bytes = 0;
  std::uint64_t fetched_bytes = 0;
  std::uint64_t pushed_bytes = 0;
  std::uint64_t faults_demand = 0;
  std::uint64_t faults_resident = 0;
  std::uint64_t faults_write_protect = 0;
  std::uint64_t errors = 0;
  std::uint64_t module_bytes = 0;
  std::uint64_t lost_bytes = 0;  // only in the answer to unmaking by force

  bool read_only() const { return (flags & RMEM_REGION_READ_ONLY) != 0; }
};

struct Event {
  std::uint32_t kind = 0;  // enum rmem_event
  RegionInfo region;       // as much of it as the event carries
};

// One message of the family, as the kernel sends it.
struct RegionMessage {
  std::uint8_t command = 0;  // enum rmem_cmd
  std::uint32_t event = 0;   // enum rmem_event, where it is one
  RegionInfo region;         // as much of it as the message carries
};

// `message` begins with its nlmsghdr, aligned as such. Nothing if it is none, or if an
// attribute is not as long as its type.
std::optional<RegionMessage> decode_region(std::span<const std::byte> message);

// Names for people and JSON: "active", "wait", "new", ...; "unknown" if none.
const char* state_name(std::uint32_t state);
const char* on_loss_name(std::uint32_t on_loss);
const char* event_name(std::uint32_t kind);

// A connection to the family `rmem`. Every call is one short round trip to the
// kernel; none waits for a daemon or a server. Not thread-safe.
class Netlink {
 public:
  // kNotFound: the family, hence the module, is absent.
  static Result<std::unique_ptr<Netlink>> open();
  // Of the loaded module's family; kNotFound as above.
  static Result<unsigned> family_version();
  ~Netlink();
  Netlink(const Netlink&) = delete;
  Netlink& operator=(const Netlink&) = delete;

  // The regions that the caller may see.
  Result<std::vector<RegionInfo>> list();
  // kNotFound: no such region, or none that the caller may see.
  Result<RegionInfo> get(const std::string& name);

  // The rest needs `control_fd`, a descriptor of /dev/rmem_control opened for
  // writing, as proof of authority.

  struct Made {
    std::uint32_t id = 0;
    WriterId writer{};
  };
  // Makes a region out of the configuration fields of `wanted` (name to blob,
  // without id). kBusy: the name is taken.
  Result<Made> make(int control_fd, const RegionInfo& wanted);
  // Replaces the daemon's notes.
  Status set_blob(int control_fd, std::uint32_t id, const std::string& blob);
  // kBusy: open, mapped, or with bytes that are not durable.
  Status unmake(int control_fd, std::uint32_t id);
  // Whoever uses it and whatever is not durable: how many bytes were lost. Never
  // waits for a daemon.
  Result<std::uint64_t> unmake_by_force(int control_fd, std::uint32_t id);
  // Whoever waits for the region gets an error; nothing is lost.
  Status abort(int control_fd, std::uint32_t id);

 private:
  struct SocketCloser {
    void operator()(nl_sock* socket) const;
  };
  struct MessageFree {
    void operator()(nl_msg* message) const;
  };
  using Message = std::unique_ptr<nl_msg, MessageFree>;

  Netlink() = default;
  Message message(std::uint8_t command, int flags) const;
  // One about a region, with the caller's authority; null without memory.
  Message command(std::uint8_t command, int control_fd, std::uint32_t id) const;
  // Sends and collects every region in the answer. 0 or a positive errno.
  int exchange(nl_msg* request, std::vector<RegionInfo>& answer);

  std::unique_ptr<nl_sock, SocketCloser> socket_;
  int family_ = 0;

  friend class EventStream;
};

// The multicast group of events. Listening needs CAP_NET_ADMIN.
class EventStream {
 public:
  static Result<std::unique_ptr<EventStream>> open();
  ~EventStream();

  // For poll(2): readable when next() has something.
  int fd() const;
  // Takes what has arrived, without waiting. `lost` tells that the kernel
  // dropped events because nobody took them in time.
  struct Batch {
    std::vector<Event> events;
    bool lost = false;
  };
  Result<Batch> take();

 private:
  explicit EventStream(std::unique_ptr<Netlink> netlink);
  std::unique_ptr<Netlink> netlink_;
};

}  // namespace rmem::kchan
