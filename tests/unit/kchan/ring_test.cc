// SPDX-License-Identifier: MIT
#include "kchan/ring.hh"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "kchan/errors.hh"

namespace rmem::kchan {
namespace {

// The kernel's end.
class FakeRing {
 public:
  explicit FakeRing(std::uint32_t entries) : memory_(4096 + entries * sizeof(rmem_request)) {
    header().magic = RMEM_RING_MAGIC;
    header().entries = entries;
    header().entry_bytes = sizeof(rmem_request);
    header().entries_offset = 4096;
  }
  rmem_ring_header& header() { return *reinterpret_cast<rmem_ring_header*>(memory_.data()); }
  std::span<std::byte> memory() { return memory_; }
  // False when it is full.
  bool publish(std::uint64_t cookie) {
    const std::uint32_t head = header().head;
    const std::uint32_t tail =
        std::atomic_ref<std::uint32_t>(header().tail).load(std::memory_order_acquire);
    if (head - tail == header().entries) return false;
    rmem_request r{};
    r.cookie = r.offset = r.length = cookie;
    std::memcpy(memory_.data() + 4096 + (head % header().entries) * sizeof(r), &r, sizeof(r));
    std::atomic_ref<std::uint32_t>(header().head).store(head + 1, std::memory_order_release);
    return true;
  }

 private:
  std::vector<std::byte> memory_;
};

TEST(Ring, LayoutIsTheOneOfTheUapi) {
  static_assert(sizeof(rmem_request) == 64);
  static_assert(offsetof(rmem_ring_header, head) == 64);
  static_assert(offsetof(rmem_ring_header, tail) == 128);
  static_assert(sizeof(rmem_ring_header) == 192);
}

TEST(Ring, DeliversInOrderAcrossTheWrap) {
  FakeRing kernel(64);
  kernel.header().head = kernel.header().tail = 0xfffffff0u;
  auto ring = Ring::open(kernel.memory());
  ASSERT_TRUE(ring.ok());
  rmem_request r;
  EXPECT_EQ(ring->pop(r), Ring::Pop::kEmpty);
  for (std::uint64_t i = 0; i < 64; ++i) EXPECT_TRUE(kernel.publish(i));
  EXPECT_FALSE(kernel.publish(64));
  for (std::uint64_t i = 0; i < 64; ++i) {
    ASSERT_EQ(ring->pop(r), Ring::Pop::kEntry);
    EXPECT_EQ(r.cookie, i);
  }
  EXPECT_EQ(ring->pop(r), Ring::Pop::kEmpty);
  EXPECT_EQ(kernel.header().tail, kernel.header().head);
}

TEST(Ring, HeadThatMakesNoSenseIsDamage) {
  FakeRing kernel(64);
  auto ring = Ring::open(kernel.memory());
  ASSERT_TRUE(ring.ok());
  kernel.header().head = 65;
  rmem_request r;
  EXPECT_EQ(ring->pop(r), Ring::Pop::kDamaged);
  kernel.header().head = 0xffffffffu;
  EXPECT_EQ(ring->pop(r), Ring::Pop::kDamaged);
  EXPECT_EQ(kernel.header().tail, 0u);
}

TEST(Ring, ScribbledTailAndSizeAreNotBelieved) {
  FakeRing kernel(64);
  auto ring = Ring::open(kernel.memory());
  ASSERT_TRUE(ring.ok());
  kernel.publish(1);
  kernel.header().tail = 12345;
  kernel.header().entries = 1u << 30;
  kernel.header().entries_offset = 1u << 31;
  rmem_request r;
  ASSERT_EQ(ring->pop(r), Ring::Pop::kEntry);
  EXPECT_EQ(r.cookie, 1u);
  EXPECT_EQ(kernel.header().tail, 1u);
}

TEST(Ring, HeadersThatDoNotFitAreRefused) {
  const auto refused = [](auto change) {
    FakeRing kernel(64);
    change(kernel.header());
    return !Ring::open(kernel.memory()).ok();
  };
  EXPECT_TRUE(refused([](auto& h) { h.magic = 0; }));
  EXPECT_TRUE(refused([](auto& h) { h.entries = 0; }));
  EXPECT_TRUE(refused([](auto& h) { h.entries = 65; }));
  EXPECT_TRUE(refused([](auto& h) { h.entries = 128; }));
  EXPECT_TRUE(refused([](auto& h) { h.entries = 1u << 31; }));
  EXPECT_TRUE(refused([](auto& h) { h.entry_bytes = 32; }));
  EXPECT_TRUE(refused([](auto& h) { h.entries_offset = 0; }));
  EXPECT_TRUE(refused([](auto& h) { h.entries_offset = 4097; }));
  EXPECT_TRUE(refused([](auto& h) { h.entries_offset = 0xfffffff8u; }));
  std::byte tiny[16]{};
  EXPECT_FALSE(Ring::open(tiny).ok());
}

TEST(Ring, ConcurrentProducer) {
  constexpr std::uint64_t kCount = 50000;
  FakeRing kernel(64);
  auto ring = Ring::open(kernel.memory());
  ASSERT_TRUE(ring.ok());
  std::thread producer([&] {
    for (std::uint64_t i = 1; i <= kCount;) {
      if (kernel.publish(i)) {
        ++i;
      } else {
        std::this_thread::yield();
      }
    }
  });
  for (std::uint64_t i = 1; i <= kCount;) {
    rmem_request r;
    const Ring::Pop pop = ring->pop(r);
    ASSERT_NE(pop, Ring::Pop::kDamaged);
    if (pop == Ring::Pop::kEmpty) {
      std::this_thread::yield();
      continue;
    }
    ASSERT_EQ(r.cookie, i);
    ASSERT_EQ(r.length, i);
    ++i;
  }
  producer.join();
}

TEST(ModuleError, MapsToTheCodesOfTheContract) {
  EXPECT_EQ(module_error(ENOENT, "region x").code(), Code::kNotFound);
  EXPECT_EQ(module_error(EBUSY, "region x").code(), Code::kBusy);
  EXPECT_EQ(module_error(EEXIST, "region x").code(), Code::kBusy);
  EXPECT_EQ(module_error(EINVAL, "region x").code(), Code::kUsage);
  EXPECT_EQ(module_error(EACCES, "region x").code(), Code::kPermission);
  EXPECT_EQ(module_error(ESTALE, "region x").code(), Code::kCorrupt);
  EXPECT_EQ(module_error(ENOSPC, "region x").code(), Code::kFailed);
  EXPECT_EQ(module_error(ENOSPC, "region x").err(), ENOSPC);
  EXPECT_NE(module_error(EBUSY, "region x").cause().find("region x"), std::string::npos);
  EXPECT_EQ(module_absent("no /dev/rmem").code(), Code::kNotFound);
  EXPECT_NE(module_absent("no /dev/rmem").hint().find("modprobe rmem"), std::string::npos);
}

}  // namespace
}  // namespace rmem::kchan
