// SPDX-License-Identifier: MIT
// The ring that the daemon shares with the kernel, and what the pager makes of its
// entries: no store is asked for what lies outside of it, no cookie ends twice.
#include "kchan/ring.hh"

#include <linux/rmem.h>

#include <map>
#include <new>

#include "base/log.hh"
#include "fuzz/fuzz.hh"
#include "pager/pager.hh"
#include "store/mem.hh"
#include "unit/control/fakes.hh"

namespace {

using namespace rmem;

constexpr std::uint64_t kSize = (1 << 20) + 5;
constexpr std::uint32_t kChunk = 64 << 10;

class Kernel final : public kchan::KernelChannel {
 public:
  int serve(std::uint32_t) override { return 0; }
  int push(std::uint32_t) override { return 0; }
  int fill(std::uint64_t cookie, std::uint64_t offset, std::span<const std::byte> bytes,
           std::uint32_t) override {
    FUZZ_CHECK(offset == 0 && bytes.size() <= kChunk);
    return end(cookie);
  }
  int fill_zeros(std::uint64_t, std::uint64_t, std::uint32_t) override { std::abort(); }
  bool receives() const override { return false; }
  Received receive(std::uint64_t, std::uint64_t, std::uint64_t, int, std::uint32_t,
                   const std::optional<std::uint32_t>&) override {
    std::abort();
  }
  bool asks() const override { return false; }
  int lane(std::uint32_t, const Lane&, bool&) override { return ENOENT; }
  LaneEnd end_lane(std::uint32_t, std::span<std::byte>) override { return {}; }
  int complete(std::span<const std::uint64_t> cookies, int) override {
    for (const std::uint64_t cookie : cookies) (void)end(cookie);
    return 0;
  }
  // Runs as the input has them: the kernel, too, may be wrong.
  int write_out(std::uint64_t cookie, std::span<std::byte> into, std::span<rmem_run> runs,
                std::uint64_t& bytes, std::uint32_t& count) override {
    if (cookie % 5 == 4) return ENOENT;
    bytes = cookie % 7 == 6 ? into.size() + 1 : std::min<std::uint64_t>(into.size(), 4096);
    std::fill(into.begin(), into.end(), std::byte{0x5a});
    count = 1;
    runs[0] = {cookie >> 8, cookie % 3 == 2 ? ~0ull : bytes};
    return 0;
  }
  bool sends() const override { return false; }
  int write_runs(std::uint64_t, std::span<rmem_write_run>, std::uint32_t&) override {
    std::abort();
  }
  Sent send(std::uint32_t, std::uint64_t, std::uint64_t, int) override { std::abort(); }
  int prefetch(std::uint32_t, std::uint64_t offset, std::uint64_t length, std::uint32_t,
               std::uint32_t& queued) override {
    FUZZ_CHECK(offset < kSize && length <= kSize - offset && length != 0);
    queued = 1;
    return 0;
  }
  int set_state(std::uint32_t, std::uint32_t, std::string_view) override { return 0; }

  std::map<std::uint64_t, std::uint64_t> outstanding;

 private:
  int end(std::uint64_t cookie) {
    const auto found = outstanding.find(cookie);
    FUZZ_CHECK(found != outstanding.end() && found->second != 0);
    --found->second;
    return 0;
  }
};

// As memory, but asked for nothing that is not there.
class Store final : public store::Store {
 public:
  const store::Geometry& geometry() const override { return memory_.geometry(); }
  void read(std::uint64_t offset, std::span<std::byte> into, store::Done done,
            store::Urgency urgency) override {
    inside(offset, into.size());
    memory_.read(offset, into, done, urgency);
  }
  void write(std::uint64_t offset, std::span<const std::byte> from, store::Done done) override {
    inside(offset, from.size());
    memory_.write(offset, from, done);
  }
  void zero(std::uint64_t offset, std::uint64_t length, store::Done done) override {
    inside(offset, length);
    memory_.zero(offset, length, done);
  }
  void flush(store::Done done) override { memory_.flush(done); }

 private:
  static void inside(std::uint64_t offset, std::uint64_t length) {
    FUZZ_CHECK(length != 0 && offset < kSize && length <= kSize - offset);
  }
  store::MemStore memory_{kSize};
};

}  // namespace

FUZZ_TARGET(ring) {
  log::set_level(log::Level::kNone);
  // As the kernel maps it: a header, entries, nothing behind.
  const std::unique_ptr<std::byte, void (*)(std::byte*)> memory(
      new (std::align_val_t(64)) std::byte[input.size() + 1],
      [](std::byte* p) { ::operator delete[](p, std::align_val_t(64)); });
  std::copy(input.begin(), input.end(), memory.get());
  auto* header = reinterpret_cast<rmem_ring_header*>(memory.get());
  if (input.size() >= sizeof *header && input[0] == std::byte{0}) {
    // Right where chance would not find it.
    header->magic = RMEM_RING_MAGIC;
    header->entry_bytes = sizeof(rmem_request);
  }
  auto ring = kchan::Ring::open({memory.get(), input.size()});
  if (!ring) return;

  Kernel kernel;
  Store store;
  pager::Pager pager(kernel, {.buffer_bytes = 1 << 20, .requests = 16, .request_limit = 64},
                     [](auto) {});
  pager.add({.id = 1, .name = "fuzz", .size = kSize, .chunk = kChunk});
  pager.connect(1, store);
  rmem_request entry;
  for (int i = 0; i < 256 && ring->pop(entry) == kchan::Ring::Pop::kEntry; ++i) {
    if (entry.region_id % 2 == 0) entry.region_id = 1;
    ++kernel.outstanding[entry.cookie];
    if (pager.room()) pager.accept(entry);
    if (i % 3 == 2) pager.pump();
  }
  pager.pump();
  pager.remove(1, [] {});
  pager.tick();
}
