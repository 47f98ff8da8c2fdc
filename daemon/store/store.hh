// SPDX-License-Identifier: MIT
// What holds the bytes. rmem-server exports a Store; rmemd consumes one.
#pragma once

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/result.hh"
#include "base/status.hh"
#include "base/uuid.hh"

namespace rmem::store {

using rmem::Uuid;

// Fixed for the life of a store, except `epoch`.
struct Geometry {
  std::uint64_t size = 0;  // exact bytes
  bool read_only = false;
  // Which store this is. Another one under the same name is another identity:
  // whoever had the old one open must not go on with the new one.
  Uuid identity{};
  // Durability epoch: changes whenever writes that were acknowledged but not
  // flushed may have been lost (boot id of the host for files, life of the
  // process for memory).
  std::uint64_t epoch = 0;
};

// How an operation ended. Plain data: made on the data path without allocation.
struct Outcome {
  // 0, or a positive errno out of this dictionary:
  //   EAGAIN   not done, the connection was lost; issue it again once the
  //            store is up
  //   ENOSPC EIO EROFS EINVAL   the store's answer
  //   EBADMSG  the bytes arrived damaged
  //   ESTALE   the store is not the one that was opened, or the writer claim
  //            was taken over: final
  //   ECANCELED  of receive(): its receiver would not have the bytes
  int err = 0;
  // The durability epoch under which it was carried out; 0 on errors.
  std::uint64_t epoch = 0;
};

// Who waits for a read. Demand goes before bulk wherever one would have to wait for
// the other, but does not hold it up for good.
enum class Urgency : std::uint8_t {
  kBulk,    // nobody yet
  kDemand,  // a task that has faulted
};

// Completion: a function and its context, no allocation. Called exactly once,
// on the thread that drives the store, possibly before the call returns.
struct Done {
  void (*fn)(void* ctx, const Outcome& outcome) = nullptr;
  void* ctx = nullptr;
  void operator()(const Outcome& outcome) const { fn(ctx, outcome); }
};

// Takes the bytes of a read by itself, out of the socket at which they arrive.
// `ctx` says which read. Calls come in order, each where the one before stopped, or
// from 0 on, at another socket, where the one before was lost.
class Receiver {
 public:
  struct Taken {
    std::uint64_t bytes = 0;  // out of the socket, whatever else
    // The connection is over; `err` says how, 0: closed by the peer.
    bool lost = false;
    // 0: all that were offered; EAGAIN: no more are there; EBADMSG: all, but the
    // checksum is another one; anything else: the receiver wants no more.
    int err = 0;
  };
  // The socket's next `length` bytes belong at `offset` of the read, and end it.
  // `checksum`: CRC-32C of all of the read.
  virtual Taken receive(void* ctx, std::uint64_t offset, std::uint64_t length, int socket,
                        const std::optional<std::uint32_t>& checksum) = 0;
  // All of the read is zeros, and nothing comes. False: the receiver wants no more.
  virtual bool zeros(void* ctx) = 0;
  // All of the read, which had to pass through memory. False: likewise.
  virtual bool whole(void* ctx, std::span<const std::byte> bytes) = 0;

 protected:
  ~Receiver() = default;
};

// Sends the bytes of writes by itself, into the socket on which the store writes.
class Sender {
 public:
  struct Sent {
    std::uint64_t bytes = 0;  // taken by the socket, whatever else
    // 0: all of them; EAGAIN: the socket is full; anything else: there will be no
    // more, and the connection must not go on in the middle of them.
    int err = 0;
  };
  // The store's bytes from `offset` on, as they shall be.
  virtual Sent send(std::uint64_t offset, std::uint64_t length, int socket) = 0;

 protected:
  ~Sender() = default;
};

// Asks a store's server for reads by itself, on a connection that the store lends
// it, and takes the answers, too, or is given them. As a Receiver, it takes their bytes
// out of the socket.
class Asker : public Receiver {
 public:
  // How to ask: `message` with three numbers of 64 bits, little-endian, and a CRC-32C
  // of what is in front of it (at 0: without) put in. The cookies are the asker's,
  // below 2^63 and unique among what is not answered yet.
  struct Lane {
    std::uint32_t number = 0;  // of the connection; not 0
    int socket = -1;
    std::span<const std::byte> message;
    std::uint16_t cookie_at = 0, offset_at = 0, length_at = 0, checksum_at = 0;
    // How an answer with bytes looks, where it may take them: `header` in the bits of
    // `mask`, with the numbers that were asked for, then the payload. Else empty.
    struct Answer {
      std::span<const std::byte> header, mask;
      std::uint16_t cookie_at = 0, offset_at = 0, length_at = 0, payload_at = 0;
      std::uint16_t payload_checksum_at = 0, checksum_at = 0;
    } answer;
    std::chrono::microseconds round_trip{};  // at least; 0: not known
    std::uint32_t at_once = 0;               // outstanding at most; 0: any number
  };
  enum class Begun {
    kNo,     // it will not, on no connection like this
    kAsks,   // answers are the store's to receive, and given to the asker
    kTakes,  // it receives them; the store nothing, until pause()
  };
  // It may ask from now on.
  virtual Begun begin(const Lane& lane) = 0;
  // What it has received of an answer and not finished.
  struct Started {
    std::size_t header = 0;     // bytes, in the caller's `header`
    std::uint64_t payload = 0;  // bytes, where receive() would have put them
    bool damaged = false;       // they are all, and the checksum is another one
  };
  // It must not, once this has returned: the store sends something itself, or receives. What
  // it has asked will be answered. begin() with the same number follows.
  virtual Started pause(std::span<std::byte> header) = 0;
  // The connection is gone, or not lent any more; what was asked there and has not
  // been answered will not be. Paused before.
  virtual void lost(std::uint32_t number) = 0;
  // An answer arrives. What it answers, for answered() and receive(); null: nothing
  // that anybody waits for. `length` 0: it is an error. Nothing returned: the range is
  // another one than was asked for.
  virtual std::optional<void*> awaited(std::uint64_t cookie, std::uint64_t offset,
                                       std::uint64_t length) = 0;
  // It is there, with these bytes, unless receive() has taken them.
  virtual void answered(void* ctx, const Outcome& outcome, std::span<const std::byte> bytes) = 0;

 protected:
  ~Asker() = default;
};

// Asynchronous block store. Not thread-safe: every call and every completion
// happen on the one thread of the reactor it was made with.
//
// Ranges are in bytes, may be unaligned, and must lie inside the geometry
// (EINVAL otherwise). A read delivers all of its bytes or fails; there are no
// short results. Bytes that were never written read as zeros only where the
// store knows that they never were; a chunk that ought to be there and is not
// is EIO. Buffers belong to the caller and stay untouched by it until the
// completion. Two overlapping writes are applied in the order of the calls; a
// read issued after a write's completion sees it.
//
// A write is durable once a flush issued after its completion has completed
// with the same epoch.
class Store {
 public:
  virtual ~Store() = default;

  virtual const Geometry& geometry() const = 0;
  virtual void read(std::uint64_t offset, std::span<std::byte> into, Done done,
                    Urgency urgency = Urgency::kBulk) = 0;
  // As read(), but says where the bytes lie, as long as there is the store: for a system call to
  // copy from. They may change until then. A program that looks at them itself may be killed,
  // should somebody make a file shorter; the call fails with EFAULT. `into` is empty if they are
  // better copied, as zeros are. Only when can_view() says so.
  virtual void view(std::uint64_t /*offset*/, std::uint64_t /*length*/,
                    std::span<const std::byte>& /*into*/, Done done,
                    Urgency /*urgency*/ = Urgency::kBulk) {
    done({EINVAL, 0});
  }
  // Whether that serves a read of so many bytes, and is worth it.
  virtual bool can_view(std::uint64_t /*length*/) const { return false; }
  // As read(), with the bytes going to `receiver`, which must outlive it. Where
  // it fails, some may have gone there. Only when can_receive() says so.
  virtual void receive(std::uint64_t /*offset*/, std::uint64_t /*length*/, Receiver& /*receiver*/,
                       void* /*ctx*/, Done done, Urgency /*urgency*/ = Urgency::kBulk) {
    done({EINVAL, 0});
  }
  // Whether that serves a read of so many bytes now, and is worth it.
  virtual bool can_receive(std::uint64_t /*length*/) const { return false; }
  // Whether a demand does not wait behind what is bulk: there is another way, or nothing in it.
  virtual bool overtakes() const { return false; }
  // How long its answers are under way at least; 0: not known.
  virtual std::chrono::microseconds round_trip() const { return {}; }
  // Demands of at most `longest` bytes may be asked for by `asker` from now on, where
  // that is possible, until it is set to null, which ends it without answers.
  // `receives`: it is a receiver, too, where can_receive() says so.
  virtual void set_asker(Asker* /*asker*/, std::uint64_t /*longest*/ = 0,
                         bool /*receives*/ = false) {}
  // The asker takes no more answers on that connection; the store has to.
  virtual void take_answers(std::uint32_t /*lane*/) {}
  virtual void write(std::uint64_t offset, std::span<const std::byte> from, Done done) = 0;
  // As write(), of the bytes that `sender`, which must outlive it, sends when their
  // turn has come. Only when can_send() says so.
  virtual void send(std::uint64_t /*offset*/, std::uint64_t /*length*/, Sender& /*sender*/,
                    Done done) {
    done({EINVAL, 0});
  }
  // Whether that serves a write of so many bytes now, and is worth it.
  virtual bool can_send(std::uint64_t /*length*/) const { return false; }
  // The range reads as zeros afterwards; frees space where the store can.
  virtual void zero(std::uint64_t offset, std::uint64_t length, Done done) = 0;
  virtual void flush(Done done) = 0;
  // As flush(), but covers what was issued before it, completed or not: such a write is
  // durable once both have completed with the same epoch. Only when can_flush_behind()
  // says so.
  virtual void flush_behind(Done done) { done({EINVAL, 0}); }
  virtual bool can_flush_behind() const { return false; }
};

}  // namespace rmem::store
