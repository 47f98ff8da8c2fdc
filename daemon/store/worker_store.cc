// SPDX-License-Identifier: MIT
#include "store/worker_store.hh"

#include <atomic>
#include <cerrno>

#include "store/local_fs.hh"
#include "store/range.hh"

namespace rmem::store {
namespace {

// A store that is closed and opened again may not have what it had acknowledged (of a
// directory the manifest), as little as after a flush that failed.
std::uint64_t another_epoch() {
  static std::atomic<std::uint64_t> losses{0};
  return local_epoch(losses++);
}

}  // namespace

WorkerStore::WorkerStore(Workers& workers, std::uint64_t size, const Uuid& identity, bool read_only)
    : geometry_{.size = size,
                .read_only = read_only,
                .identity = identity,
                .epoch = another_epoch()},
      workers_(workers) {
  batch_.store = flush_.store = this;
  batch_.run = [](Workers::Job& job) {
    for (Op* op : static_cast<Batch&>(job).ops)
      op->err = op->kind == Op::Kind::kWrite
                    ? op->store->do_write(op->offset, {op->bytes, op->length})
                    : op->store->do_zero(op->offset, op->length);
  };
  batch_.done = [](Workers::Job& job) {
    WorkerStore& self = *static_cast<Batch&>(job).store;
    // By index, and the list kept until the end: completions may call write().
    for (std::size_t i = 0; i < self.batch_.ops.size(); ++i) self.finish(*self.batch_.ops[i]);
    self.batch_running_ = false;
    if (!self.waiting_.empty()) self.start_batch();
  };
  flush_.run = [](Workers::Job& job) {
    auto& self = static_cast<Flush&>(job);
    self.err = self.store->do_flush();
  };
  flush_.done = [](Workers::Job& job) {
    WorkerStore& self = *static_cast<Flush&>(job).store;
    Outcome outcome{0, self.geometry_.epoch};
    if (self.flush_.err != 0) {
      outcome = {store_errno(self.flush_.err), 0};
      self.geometry_.epoch = another_epoch();
    }
    for (std::size_t i = 0; i < self.flush_.callbacks.size(); ++i)
      self.flush_.callbacks[i](outcome);
    self.flush_running_ = false;
    if (!self.flushes_waiting_.empty()) self.start_flush();
  };
}

WorkerStore::Op& WorkerStore::take_op(Op::Kind kind, std::uint64_t offset, std::uint64_t length,
                                      std::byte* bytes, Done done) {
  if (free_.empty()) {
    ops_.push_back(std::make_unique<Op>());
    free_.reserve(ops_.size());
    free_.push_back(ops_.back().get());
  }
  Op& op = *free_.back();
  free_.pop_back();
  op.kind = kind;
  op.store = this;
  op.offset = offset;
  op.length = length;
  op.bytes = bytes;
  op.callback = done;
  op.epoch = geometry_.epoch;
  op.err = 0;
  return op;
}

void WorkerStore::finish(Op& op) {
  const Done done = op.callback;
  const Outcome outcome{op.err == 0 ? 0 : store_errno(op.err), op.err == 0 ? op.epoch : 0};
  free_.push_back(&op);
  done(outcome);
}

void WorkerStore::read(std::uint64_t offset, std::span<std::byte> into, Done done,
                       Urgency urgency) {
  if (!inside(offset, into.size(), geometry_.size)) return done({EINVAL, 0});
  const std::size_t have = read_at_once(offset, into);
  if (have == into.size()) return done({0, geometry_.epoch});
  // The rest has to come from the disk (or the file system knows no NOWAIT).
  Op& op = take_op(Op::Kind::kRead, offset + have, into.size() - have, into.data() + have, done);
  op.run = [](Workers::Job& job) {
    auto& self = static_cast<Op&>(job);
    self.err = self.store->do_read(self.offset, {self.bytes, self.length});
  };
  submit_read(op, urgency);
}

void WorkerStore::view(std::uint64_t offset, std::uint64_t length, std::span<const std::byte>& into,
                       Done done, Urgency urgency) {
  if (!inside(offset, length, geometry_.size)) return done({EINVAL, 0});
  into = mapped(offset, length);
  if (into.empty() || resident(into)) return done({0, geometry_.epoch});
  Op& op = take_op(Op::Kind::kRead, offset, length, const_cast<std::byte*>(into.data()), done);
  op.run = [](Workers::Job& job) {
    auto& self = static_cast<Op&>(job);
    self.err = self.store->do_populate({self.bytes, self.length});
  };
  submit_read(op, urgency);
}

void WorkerStore::submit_read(Op& op, Urgency urgency) {
  op.done = [](Workers::Job& job) {
    auto& self = static_cast<Op&>(job);
    self.store->finish(self);
  };
  workers_.submit(op, urgency == Urgency::kBulk ? Workers::When::kLater : Workers::When::kSoon);
}

void WorkerStore::write(std::uint64_t offset, std::span<const std::byte> from, Done done) {
  if (geometry_.read_only) return done({EROFS, 0});
  if (!inside(offset, from.size(), geometry_.size)) return done({EINVAL, 0});
  modify(take_op(Op::Kind::kWrite, offset, from.size(), const_cast<std::byte*>(from.data()), done));
}

void WorkerStore::zero(std::uint64_t offset, std::uint64_t length, Done done) {
  if (geometry_.read_only) return done({EROFS, 0});
  if (!inside(offset, length, geometry_.size)) return done({EINVAL, 0});
  modify(take_op(Op::Kind::kZero, offset, length, nullptr, done));
}

void WorkerStore::modify(Op& op) {
  waiting_.push_back(&op);
  if (!batch_running_) start_batch();
}

void WorkerStore::start_batch() {
  batch_running_ = true;
  batch_.ops.clear();
  batch_.ops.swap(waiting_);
  // The epoch of a write is the one before it began: if a flush fails
  // meanwhile, its pages may be among those that were dropped.
  for (Op* op : batch_.ops) op->epoch = geometry_.epoch;
  workers_.submit(batch_);
}

void WorkerStore::flush(Done done) {
  if (geometry_.read_only) return done({EROFS, 0});
  flushes_waiting_.push_back(done);
  if (!flush_running_) start_flush();
}

// One at a time: of two that run together, one may get the error of a
// write-back that concerns both.
void WorkerStore::start_flush() {
  flush_running_ = true;
  flush_.callbacks.clear();
  flush_.callbacks.swap(flushes_waiting_);
  workers_.submit(flush_);
}

}  // namespace rmem::store
