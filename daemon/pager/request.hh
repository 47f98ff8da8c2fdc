// SPDX-License-Identifier: MIT
// One request of the kernel's, from the ring to its completion.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/reactor.hh"

namespace rmem::pager {

class Region;

// In exactly one List at a time, or being carried out by the store (then it is
// also in its region's `reading` or `writing` list). Made by the pool only.
struct Request {
  Request* next = nullptr;
  Request* previous = nullptr;
  Region* region = nullptr;
  // FETCH: the same, asked for a second time; or its scout; or whose scout this is
  Request* twin = nullptr;

  std::uint64_t cookie = 0;
  std::uint64_t offset = 0;  // bytes from the region's start
  std::uint64_t length = 0;
  std::uint64_t demand = 0;    // FETCH: the byte that was missed first
  std::uint64_t payload = 0;   // WRITE: bytes that write_out will give
  std::uint64_t sequence = 0;  // WRITE, ZERO: order of arrival in the region
  std::uint64_t epoch = 0;     // WRITE, ZERO: durability epoch of the acks
  std::uint64_t flush = 0;     // WRITE, ZERO: number of the flush that covers it; 0: none
  std::uint8_t op = 0;         // enum rmem_op
  std::uint8_t flags = 0;      // RMEM_REQ_*
  std::uint8_t tries = 0;      // answers in a row that were damaged, or had no memory
  bool mark = false;           // FETCH: fill with RMEM_FILL_MARK
  bool by_copy = false;        // FETCH: the module would not receive it; WRITE: nor send
  bool reserve = false;        // `buffer` is the region's own
  bool whole_buffer = false;   // WRITE: `payload` was too small once
  bool wrote = false;          // WRITE, ZERO: the store was given something
  bool overtaken = false;      // FETCH: `twin` has filled it
  bool urgent = false;         // FETCH: the store was told so
  bool hedge = false;          // FETCH: in place of `twin`, which is late, so another way
  bool hedged = false;         // FETCH: there was such a twin
  bool scout = false;          // FETCH: for the page that is waited for, ahead of `twin`
  bool alone = false;          // FETCH: there was no other at the store
  bool epochs_differ = false;  // WRITE: its runs were acknowledged in several
  std::chrono::steady_clock::time_point asked{};  // FETCH: when the store was
  std::uint32_t pending = 0;                      // answers of the store still to come
  int err = 0;  // the gravest of those that came; FETCH: the module's
  std::span<std::byte> buffer;

  std::uint64_t end() const { return offset + length; }
  bool overlaps(const Request& other) const { return offset < other.end() && other.offset < end(); }
};

// A doubly linked list through the requests themselves: no allocation.
class List {
 public:
  bool empty() const { return !first_; }
  std::size_t size() const { return size_; }
  Request* first() const { return first_; }

  void push_back(Request* r) { insert_before(nullptr, r); }
  void push_front(Request* r) { insert_before(first_, r); }

  // Keeps a list sorted by `sequence`; cheap where `r` belongs near the front.
  void insert_sorted(Request* r) {
    Request* at = first_;
    while (at && at->sequence < r->sequence) at = at->next;
    insert_before(at, r);
  }

  void remove(Request* r) {
    (r->previous ? r->previous->next : first_) = r->next;
    (r->next ? r->next->previous : last_) = r->previous;
    r->next = r->previous = nullptr;
    --size_;
  }

  Request* pop_front() {
    Request* r = first_;
    if (r) remove(r);
    return r;
  }

  // Null: it is not here.
  Request* find(std::uint64_t cookie) const {
    Request* r = first_;
    while (r && r->cookie != cookie) r = r->next;
    return r;
  }

  std::uint64_t buffer_bytes() const {
    std::uint64_t bytes = 0;
    for (const Request* r = first_; r; r = r->next) bytes += r->buffer.size();
    return bytes;
  }

  // Takes everything out of `other`.
  void splice_back(List& other) {
    while (Request* r = other.pop_front()) push_back(r);
  }

 private:
  void insert_before(Request* at, Request* r) {
    r->next = at;
    r->previous = at ? at->previous : last_;
    (r->previous ? r->previous->next : first_) = r;
    (r->next ? r->next->previous : last_) = r;
    ++size_;
  }

  Request* first_ = nullptr;
  Request* last_ = nullptr;
  std::size_t size_ = 0;
};

// Free requests. Grows in blocks up to a limit and never shrinks: once it has
// been as large as the load needs, it does not allocate any more.
class RequestPool {
 public:
  RequestPool(std::size_t initial, std::size_t limit) : limit_(limit) { grow(initial); }

  // Null when `limit` requests are out.
  Request* take() {
    if (free_.empty()) {
      if (made_ >= limit_) return nullptr;
      grow(kBlock);
    }
    return free_.pop_front();
  }

  void give_back(Request* r) {
    *r = Request{};
    free_.push_front(r);
  }

  std::size_t in_use() const { return made_ - free_.size(); }
  std::size_t bytes() const { return made_ * sizeof(Request); }
  std::size_t most_bytes() const { return (limit_ + kBlock - 1) * sizeof(Request); }

 private:
  static constexpr std::size_t kBlock = 1024;

  void grow(std::size_t count) {
    blocks_.push_back(std::make_unique<Request[]>(count));
    for (std::size_t i = count; i != 0; --i) free_.push_front(&blocks_.back()[i - 1]);
    made_ += count;
  }

  std::size_t limit_;
  std::size_t made_ = 0;
  List free_;
  std::vector<std::unique_ptr<Request[]>> blocks_;
};

}  // namespace rmem::pager
