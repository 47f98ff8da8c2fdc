// SPDX-License-Identifier: MIT
// Store operations that a test starts and waits for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "store/store.hh"
#include "support/loop.hh"

namespace rmem::test {

// One operation under way, and how it ended. Stays where it is until then.
struct Pending {
  bool over = false;
  int completions = 0;
  store::Outcome outcome;
  store::Done done() {
    return {[](void* ctx, const store::Outcome& outcome) {
              auto& self = *static_cast<Pending*>(ctx);
              self.over = true;
              ++self.completions;
              self.outcome = outcome;
            },
            this};
  }
};

class StoreOps {
 public:
  StoreOps(Loop& loop, store::Store& store) : loop_(loop), store_(store) {}

  store::Outcome read(std::uint64_t offset, std::span<std::byte> into) {
    Pending pending;
    store_.read(offset, into, pending.done(), urgency);
    return wait(pending);
  }
  // The bytes, or nothing if the read failed.
  std::vector<std::byte> read(std::uint64_t offset, std::size_t length) {
    std::vector<std::byte> bytes(length, std::byte{0xee});
    if (read(offset, std::span(bytes)).err != 0) bytes.clear();
    return bytes;
  }
  store::Outcome write(std::uint64_t offset, std::span<const std::byte> from) {
    Pending pending;
    store_.write(offset, from, pending.done());
    return wait(pending);
  }
  store::Outcome zero(std::uint64_t offset, std::uint64_t length) {
    Pending pending;
    store_.zero(offset, length, pending.done());
    return wait(pending);
  }
  store::Outcome flush() {
    Pending pending;
    store_.flush(pending.done());
    return wait(pending);
  }

  store::Urgency urgency = store::Urgency::kBulk;  // of what is read

 private:
  store::Outcome wait(Pending& pending) {
    loop_.until([&] { return pending.over; });
    return pending.outcome;
  }

  Loop& loop_;
  store::Store& store_;
};

// `length` bytes that are not zero and tell where they are from.
inline std::vector<std::byte> pattern(std::size_t length, unsigned seed) {
  std::vector<std::byte> bytes(length);
  std::uint32_t state = seed * 2654435761u + 1;
  for (std::byte& byte : bytes) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<std::byte>(1 + (state >> 24) % 255);
  }
  return bytes;
}

}  // namespace rmem::test
