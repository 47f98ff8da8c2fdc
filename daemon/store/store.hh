// SPDX-License-Identifier: MIT
// What holds the bytes. rmem-server exports a Store; rmemd consumes one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
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
  int err = 0;
  // The durability epoch under which it was carried out; 0 on errors.
  std::uint64_t epoch = 0;
};

// Completion: a function and its context, no allocation. Called exactly once,
// on the thread that drives the store, possibly before the call returns.
struct Done {
  void (*fn)(void* ctx, const Outcome& outcome) = nullptr;
  void* ctx = nullptr;
  void operator()(const Outcome& outcome) const { fn(ctx, outcome); }
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
  virtual void read(std::uint64_t offset, std::span<std::byte> into, Done done) = 0;
  virtual void write(std::uint64_t offset, std::span<const std::byte> from, Done done) = 0;
  // The range reads as zeros afterwards; frees space where the store can.
  virtual void zero(std::uint64_t offset, std::uint64_t length, Done done) = 0;
  virtual void flush(Done done) = 0;
};

}  // namespace rmem::store
