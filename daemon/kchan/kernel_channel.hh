// SPDX-License-Identifier: MIT
// What a daemon may ask of the kernel, as an interface: the pager speaks to
// this, so that its tests need no module.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "linux/rmem.h"

namespace rmem::kchan {

// The calls of linux/rmem.h, part 2. None of them blocks or allocates. Each
// returns 0 or a positive errno out of the dictionary there; ENOENT means a
// cookie or region that is gone, which is never an error of the caller's.
class KernelChannel {
 public:
  virtual ~KernelChannel() = default;

  // From now on the region's requests come to this channel.
  virtual int serve(std::uint32_t region) = 0;
  // Dirty pages become RMEM_OP_WRITE requests.
  virtual int push(std::uint32_t region) = 0;
  // `offset` counts from the fetch's first byte; `flags` are RMEM_FILL_*.
  virtual int fill(std::uint64_t cookie, std::uint64_t offset, std::span<const std::byte> bytes,
                   std::uint32_t flags) = 0;
  // Does the module know RMEM_FILL_EARLY?
  virtual bool fills_early() const { return false; }
  // As fill() of a whole fetch, with so many zeros.
  virtual int fill_zeros(std::uint64_t cookie, std::uint64_t length, std::uint32_t flags) = 0;
  // What receive() has done.
  struct Received {
    std::uint64_t bytes = 0;  // taken from the socket, whatever else
    int err = 0;              // as RMEM_IOC_RECEIVE has it
    int socket_err = 0;       // with ECONNRESET
  };
  // Does the module know that call?
  virtual bool receives() const = 0;
  // As fill(), with the next `length` bytes of `socket`. `checksum`: CRC-32C of
  // all of the fetch.
  virtual Received receive(std::uint64_t cookie, std::uint64_t offset, std::uint64_t length,
                           int socket, std::uint32_t flags,
                           const std::optional<std::uint32_t>& checksum) = 0;
  // A socket on which the tasks that wait ask by themselves, and how.
  struct Lane {
    std::uint32_t number = 0;  // not 0
    int socket = -1;
    std::span<const std::byte> message;
    std::uint16_t cookie_at = 0, offset_at = 0, length_at = 0, checksum_at = 0;
    std::uint32_t at_once = 0;  // outstanding at most; 0: any number
    // What answers look like that they take as well; none: `answer` is empty.
    std::span<const std::byte> answer, answer_mask;
    std::uint16_t answer_cookie_at = 0, answer_offset_at = 0, answer_length_at = 0,
                  answer_payload_at = 0, answer_sum_at = 0, answer_checksum_at = 0;
  };
  // Does the module know how?
  virtual bool asks() const = 0;
  // From now on they do so; after end_lane() has returned no more. `takes`: whether they
  // take the answers.
  virtual int lane(std::uint32_t region, const Lane& lane, bool& takes) = 0;
  // What they had taken of an answer that is not complete.
  struct LaneEnd {
    std::size_t header = 0;  // bytes of it, put where the caller wants them
    std::uint64_t payload = 0;
    bool damaged = false;
  };
  virtual LaneEnd end_lane(std::uint32_t region, std::span<std::byte> header) = 0;
  // Ends requests: `error` is 0 or the positive errno for all of them.
  virtual int complete(std::span<const std::uint64_t> cookies, int error) = 0;
  // Copies a write's dirty bytes to `into` and says where they belong. On
  // success `bytes` and `run_count` tell how much of the two was used.
  virtual int write_out(std::uint64_t cookie, std::span<std::byte> into, std::span<rmem_run> runs,
                        std::uint64_t& bytes, std::uint32_t& run_count) = 0;
  // Does the module know these two?
  virtual bool sends() const = 0;
  // Which bytes write_out() would give; `run_count` tells how many runs there are.
  virtual int write_runs(std::uint64_t cookie, std::span<rmem_write_run> runs,
                         std::uint32_t& run_count) = 0;
  // What send() has done.
  struct Sent {
    std::uint64_t bytes = 0;  // taken by the socket, whatever else
    int err = 0;              // as RMEM_IOC_SEND has it
    int socket_err = 0;       // with ECONNRESET
  };
  // Bytes of the region, as they are now, to `socket`.
  virtual Sent send(std::uint32_t region, std::uint64_t offset, std::uint64_t length,
                    int socket) = 0;
  // Asks for fetches ahead of any fault; `queued` tells how many there will be.
  // `flags` are RMEM_PREFETCH_*; EDQUOT: the resident limit leaves no room.
  virtual int prefetch(std::uint32_t region, std::uint64_t offset, std::uint64_t length,
                       std::uint32_t flags, std::uint32_t& queued) = 0;
  // `state` is enum rmem_region_state; `reason` is cut to what fits.
  virtual int set_state(std::uint32_t region, std::uint32_t state, std::string_view reason) = 0;
};

}  // namespace rmem::kchan
