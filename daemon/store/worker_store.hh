// SPDX-License-Identifier: MIT
// What a store on a local file system does beside touching files: operations
// that block, made asynchronous and put in order.
#pragma once

#include <cerrno>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/workers.hh"
#include "store/store.hh"

namespace rmem::store {

// Reads of cached bytes are answered at once; everything that may wait for the
// disk is done by `workers`. Writes and zeros are applied one after the other in
// the order of the calls; flushes that meet share one.
//
// Epoch: of the host's boot and this process, and a new one after each failed
// flush.
class WorkerStore : public Store {
 public:
  const Geometry& geometry() const final { return geometry_; }
  void read(std::uint64_t offset, std::span<std::byte> into, Done done, Urgency urgency) final;
  void view(std::uint64_t offset, std::uint64_t length, std::span<const std::byte>& into, Done done,
            Urgency urgency) final;
  void write(std::uint64_t offset, std::span<const std::byte> from, Done done) final;
  void zero(std::uint64_t offset, std::uint64_t length, Done done) final;
  void flush(Done done) final;

 protected:
  // `workers` must outlive the last operation, but may go before the store.
  WorkerStore(Workers& workers, std::uint64_t size, const Uuid& identity, bool read_only);

  // On the reactor's thread: how many of the bytes, from the first on, could be
  // read without waiting.
  virtual std::size_t read_at_once(std::uint64_t offset, std::span<std::byte> into) = 0;
  // Where the bytes are mapped, if that serves; and whether all of them are in memory. Else
  // do_populate() waits for them, on a worker.
  virtual std::span<const std::byte> mapped(std::uint64_t /*offset*/, std::uint64_t /*length*/) {
    return {};
  }
  virtual bool resident(std::span<const std::byte> /*bytes*/) { return false; }
  virtual int do_populate(std::span<const std::byte> /*bytes*/) { return EFAULT; }
  // On a worker, with ranges inside the store: 0 or an errno. Reads run beside
  // each other and beside all else; of do_write and do_zero one runs at a time,
  // and of do_flush one.
  virtual int do_read(std::uint64_t offset, std::span<std::byte> into) = 0;
  virtual int do_write(std::uint64_t offset, std::span<const std::byte> from) = 0;
  virtual int do_zero(std::uint64_t offset, std::uint64_t length) = 0;
  virtual int do_flush() = 0;

  Geometry geometry_;

 private:
  // One operation under way; from a free list, so that none is allocated while
  // there are no more than before.
  struct Op : Workers::Job {
    enum class Kind { kRead, kWrite, kZero } kind{};
    WorkerStore* store = nullptr;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::byte* bytes = nullptr;  // of a write: not modified
    Done callback;
    std::uint64_t epoch = 0;  // when it was handed to a worker
    int err = 0;
  };
  // Handed to a worker as one; belongs to the reactor otherwise.
  struct Batch : Workers::Job {
    WorkerStore* store = nullptr;
    std::vector<Op*> ops;
  };
  struct Flush : Workers::Job {
    WorkerStore* store = nullptr;
    std::vector<Done> callbacks;
    int err = 0;
  };

  Op& take_op(Op::Kind kind, std::uint64_t offset, std::uint64_t length, std::byte* bytes,
              Done done);
  void submit_read(Op& op, Urgency urgency);
  void finish(Op& op);
  void modify(Op& op);
  void start_batch();
  void start_flush();

  Workers& workers_;
  std::vector<std::unique_ptr<Op>> ops_;
  std::vector<Op*> free_;
  std::vector<Op*> waiting_;  // writes and zeros behind the batch
  Batch batch_;
  bool batch_running_ = false;
  std::vector<Done> flushes_waiting_;
  Flush flush_;
  bool flush_running_ = false;
};

}  // namespace rmem::store
