// SPDX-License-Identifier: MIT
#include "store/filter.hh"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <optional>
#include <random>

#include "store/mem.hh"
#include "support/store_ops.hh"

namespace rmem::store {
namespace {

using test::pattern;
using test::Pending;

constexpr std::uint64_t kBlock = 4096;

// --- the URI -----------------------------------------------------------------

TEST(FilteredUri, FiltersAndTheirOptionsAreTakenOut) {
  const auto uri = FilteredUri::parse(
      "Cache+delay+file:///a%20b?delay.read=5ms&size=1GiB&cache.size=1MiB&delay.write=1ms-20ms");
  ASSERT_TRUE(uri.ok()) << uri.status().cause();
  EXPECT_EQ(uri->base, "file:///a%20b?size=1GiB");
  ASSERT_EQ(uri->filters.size(), 2u);
  EXPECT_EQ(std::get<CacheFilter>(uri->filters[0]).size, 1u << 20);
  const auto& delay = std::get<DelayFilter>(uri->filters[1]);
  EXPECT_EQ(delay.ranges[0].to, std::chrono::milliseconds(5));
  EXPECT_EQ(delay.ranges[1].from, std::chrono::milliseconds(1));
  EXPECT_EQ(delay.ranges[1].to, std::chrono::milliseconds(20));
  EXPECT_EQ(delay.ranges[3].to.count(), 0);
}

TEST(FilteredUri, OthersStayAsTheyAre) {
  for (const char* text : {"mem://1GiB", "rmem+unix:///x?socket=/s", "file:///a?error.read=1",
                           "rmem://h:1/x", "no uri", "nofilter+file:///a"}) {
    const auto uri = FilteredUri::parse(text);
    ASSERT_TRUE(uri.ok()) << text;
    EXPECT_EQ(uri->base, text);
    EXPECT_TRUE(uri->filters.empty());
  }
  EXPECT_EQ(FilteredUri::parse("stats+rmem+unix:///x?socket=/s")->base, "rmem+unix:///x?socket=/s");
  // The option of a filter that is not there is the store's to refuse.
  EXPECT_EQ(FilteredUri::parse("stats+mem://1?error.read=1")->base, "mem://1?error.read=1");
}

TEST(FilteredUri, MistakesAreUsageErrorsThatNameThem) {
  const std::pair<const char*, const char*> kMistakes[] = {
      {"error+mem://1?error.raed=1", "error.raed"},
      {"error+mem://1?error.read=2", "error.read"},
      {"error+mem://1?error.read=-1", "error.read"},
      {"error+mem://1?error.read=nan", "error.read"},
      {"error+mem://1?error.read=1/0", "error.read"},
      {"error+mem://1?error.read=1/x", "error.read"},
      {"error+mem://1?error.read=", "error.read"},
      {"error+mem://1?error.errno=EAGAIN", "error.errno"},
      {"error+mem://1?error.seed=-1", "error.seed"},
      {"delay+mem://1?delay.read=5", "delay.read"},
      {"delay+mem://1?delay.read=5ms-1ms", "delay.read"},
      {"delay+mem://1?delay.open=5ms", "delay.open"},
      {"stats+mem://1?stats.x=1", "stats.x"},
      {"cache+mem://1?cache.block=5000", "cache.block"},
      {"cache+mem://1?cache.block=1KiB", "cache.block"},
      {"cache+mem://1?cache.size=4KiB", "cache.size"},
      {"cache+mem://1?cache.size=x", "cache.size"},
      {"error+cache+error+mem://1", "error"}};
  for (const auto& [text, name] : kMistakes) {
    const auto uri = FilteredUri::parse(text);
    ASSERT_FALSE(uri.ok()) << text;
    EXPECT_EQ(uri.status().code(), Code::kUsage) << text;
    EXPECT_NE(uri.status().cause().find("`" + std::string(text)), std::string::npos) << text;
    EXPECT_NE(uri.status().cause().find(name), std::string::npos) << uri.status().cause();
  }
}

// --- what they do ------------------------------------------------------------

// A store whose operations wait until the test lets them happen.
class ManualStore final : public Store {
 public:
  explicit ManualStore(Store& below) : below_(below), geometry_(below.geometry()) {}
  const Geometry& geometry() const override { return geometry_; }
  void read(std::uint64_t offset, std::span<std::byte> into, Done done, Urgency) override {
    reads.emplace_back(offset, into.size());
    take({offset, into, {}, 0, done});
  }
  void write(std::uint64_t offset, std::span<const std::byte> from, Done done) override {
    take({offset, {}, from, 0, done});
  }
  void zero(std::uint64_t offset, std::uint64_t length, Done done) override {
    take({offset, {}, {}, length, done});
  }
  void flush(Done done) override { done({0, geometry_.epoch}); }

  // Carries out the n-th that waits; its completion, with `err`, comes later.
  void carry_out(std::size_t n) {
    Op& op = waiting[n];
    if (!op.into.empty()) below_.read(op.offset, op.into, Pending().done());
    if (!op.from.empty()) below_.write(op.offset, op.from, Pending().done());
    if (op.length > 0) below_.zero(op.offset, op.length, Pending().done());
  }
  void complete(std::size_t n, int err = 0) {
    const Done done = waiting[n].done;
    waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(n));
    done({err, err == 0 ? geometry_.epoch : 0});
  }
  void new_epoch() { ++geometry_.epoch; }

  struct Op {
    std::uint64_t offset;
    std::span<std::byte> into;
    std::span<const std::byte> from;
    std::uint64_t length;
    Done done;
  };
  bool automatic = true;
  std::deque<Op> waiting;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> reads;  // offset and length

 private:
  void take(Op op) {
    waiting.push_back(op);
    if (!automatic) return;
    carry_out(waiting.size() - 1);
    complete(waiting.size() - 1);
  }

  Store& below_;
  Geometry geometry_;
};

class FilterTest : public testing::Test {
 protected:
  // The filters of a URI on `base`.
  test::StoreOps ops(const std::string& uri) { return {loop, on(uri, base)}; }
  Store& on(const std::string& uri, Store& store) {
    auto parsed = FilteredUri::parse(uri);
    EXPECT_TRUE(parsed.ok()) << parsed.status().cause();
    stacks.push_back(std::make_unique<FilterStack>(loop.reactor(), parsed->filters, store, "base"));
    return *stacks.back()->top();
  }
  std::vector<int> reads(const std::string& uri, int count) {
    auto filtered = ops(uri);
    std::vector<int> errors;
    std::vector<std::byte> byte(1);
    for (int i = 0; i < count; ++i) errors.push_back(filtered.read(0, std::span(byte)).err);
    return errors;
  }

  test::Loop loop;
  MemStore base{16 * kBlock};
  std::vector<std::unique_ptr<FilterStack>> stacks;
};

TEST_F(FilterTest, EveryThirdFails) {
  EXPECT_EQ(reads("error+mem://1?error.read=1/3", 7), (std::vector<int>{0, 0, EIO, 0, 0, EIO, 0}));
  EXPECT_EQ(reads("error+mem://1?error.read=1&error.errno=EBADMSG", 2),
            (std::vector<int>{EBADMSG, EBADMSG}));
  EXPECT_EQ(reads("error+mem://1?error.write=1", 1), std::vector<int>{0});
}

TEST_F(FilterTest, ChanceOfAnErrorIsKeptAndRepeats) {
  const auto errors = reads("error+mem://1?error.read=0.2&error.seed=7", 2000);
  const auto failed = std::count(errors.begin(), errors.end(), EIO);
  EXPECT_GT(failed, 320);
  EXPECT_LT(failed, 480);
  EXPECT_EQ(reads("error+mem://1?error.read=0.2&error.seed=7", 2000), errors);
  EXPECT_NE(reads("error+mem://1?error.read=0.2&error.seed=8", 2000), errors);
  // Other operations in between change nothing.
  auto filtered = ops("error+mem://1?error.read=0.2&error.flush=0.5&error.seed=7");
  std::vector<std::byte> byte(1);
  for (std::size_t i = 0; i < 100; ++i) {
    filtered.flush();
    EXPECT_EQ(filtered.read(0, std::span(byte)).err, errors[i]);
  }
}

TEST_F(FilterTest, WhatFailsIsNotCarriedOut) {
  auto filtered =
      ops("error+mem://1?error.write=1/2&error.zero=1&error.flush=1&error.errno=ENOSPC");
  ASSERT_EQ(filtered.write(0, pattern(100, 1)).err, 0);
  EXPECT_EQ(filtered.write(0, pattern(100, 2)).err, ENOSPC);
  EXPECT_EQ(filtered.zero(0, 100).err, ENOSPC);
  EXPECT_EQ(filtered.flush().err, ENOSPC);
  EXPECT_EQ(filtered.read(0, std::size_t{100}), pattern(100, 1));
}

TEST_F(FilterTest, DelayHoldsBackCompletionsNotTheOrder) {
  auto filtered = ops("delay+mem://1?delay.read=30ms&delay.flush=10ms-20ms");
  const auto start = std::chrono::steady_clock::now();
  const auto since = [&] { return std::chrono::steady_clock::now() - start; };
  ASSERT_EQ(filtered.write(0, pattern(100, 1)).err, 0);
  EXPECT_EQ(filtered.read(0, std::size_t{100}), pattern(100, 1));
  EXPECT_GE(since(), std::chrono::milliseconds(30));
  EXPECT_EQ(filtered.flush().err, 0);
  EXPECT_GE(since(), std::chrono::milliseconds(40));

  Store& store = on("delay+mem://1?delay.read=20ms&delay.flush=1ms", base);
  Pending slow, quick;
  std::vector<std::byte> bytes(100);
  store.read(0, bytes, slow.done());
  store.flush(quick.done());
  base.zero(0, 100, Pending().done());
  loop.until([&] { return quick.over; });
  EXPECT_FALSE(slow.over);
  loop.until([&] { return slow.over; });
  EXPECT_EQ(bytes, pattern(100, 1));
  EXPECT_EQ(slow.completions + quick.completions, 2);
}

TEST_F(FilterTest, LostConnectionIsHeardAtOnceThroughADelay) {
  ManualStore below(base);
  below.automatic = false;
  Store& store = on("delay+mem://1?delay.read=1h", below);
  for (const int err : {EAGAIN, ESTALE}) {
    Pending read;
    std::vector<std::byte> bytes(1);
    store.read(0, bytes, read.done());
    below.complete(0, err);
    EXPECT_EQ(read.outcome.err, err);
  }
}

TEST_F(FilterTest, StatsCountWhatPasses) {
  auto filtered = ops("stats+error+delay+mem://1?error.read=1/3&delay.read=5ms");
  std::vector<std::byte> bytes(100);
  for (int i = 0; i < 3; ++i) filtered.read(0, std::span(bytes));
  filtered.write(0, pattern(1000, 1));
  filtered.zero(0, 10);
  Pending held;
  on("stats+delay+mem://1?delay.read=1h", base).read(0, bytes, held.done());
  const auto lines = stats_report();
  ASSERT_EQ(lines.size(), 8u);
  EXPECT_EQ(lines[0].substr(0, lines[0].find(';')),
            "base: read: 2 done, 1 failed, 0 under way, 200 bytes");
  // Five milliseconds are between 4096 and 8192 us; a busy machine needs more.
  EXPECT_NE(lines[0].find("; took less than "), std::string::npos);
  EXPECT_EQ(lines[0].find(" 4ms:"), std::string::npos) << lines[0];
  EXPECT_EQ(lines[1].substr(0, lines[1].find(';')),
            "base: write: 1 done, 0 failed, 0 under way, 1000 bytes");
  EXPECT_EQ(lines[2].substr(0, lines[2].find(';')),
            "base: zero: 1 done, 0 failed, 0 under way, 10 bytes");
  EXPECT_EQ(lines[3], "base: flush: 0 done, 0 failed, 0 under way, 0 bytes");
  EXPECT_EQ(lines[4], "base: read: 0 done, 0 failed, 1 under way, 0 bytes");
  stacks.clear();
  EXPECT_TRUE(stats_report().empty());
}

// --- cache -------------------------------------------------------------------

class CacheTest : public FilterTest {
 protected:
  // How many reads reached the store below while `block` was read.
  std::size_t misses(std::uint64_t block) {
    const std::size_t before = below.reads.size();
    EXPECT_FALSE(ops.read(block * kBlock, kBlock).empty());
    return below.reads.size() - before;
  }

  ManualStore below{base};
  Store& cache = on("cache+mem://1?cache.size=16KiB&cache.block=4KiB", below);  // four blocks
  test::StoreOps ops{loop, cache};
};

TEST_F(CacheTest, WhatWasReadIsKeptUntilOthersNeedTheRoom) {
  base.write(0, pattern(16 * kBlock, 1), Pending().done());
  for (const std::uint64_t block : {0, 1, 2, 3}) EXPECT_EQ(misses(block), 1u);
  for (const std::uint64_t block : {3, 2, 1, 0}) EXPECT_EQ(misses(block), 0u);
  EXPECT_EQ(misses(4), 1u);  // takes the place of 3
  EXPECT_EQ(misses(0), 0u);
  EXPECT_EQ(misses(3), 1u);  // and that of 2
  for (const std::uint64_t block : {0, 1, 3, 4}) EXPECT_EQ(misses(block), 0u) << block;
  EXPECT_EQ(misses(2), 1u);
}

TEST_F(CacheTest, UnalignedReadsAreMadeOfWholeBlocks) {
  const auto bytes = pattern(3 * kBlock, 1);
  base.write(0, bytes, Pending().done());
  EXPECT_TRUE(ops.read(kBlock - 5, kBlock + 10) ==
              std::vector(bytes.begin() + kBlock - 5, bytes.begin() + 2 * kBlock + 5));
  EXPECT_EQ(below.reads.back(), std::make_pair(std::uint64_t{0}, 3 * kBlock));
  EXPECT_TRUE(ops.read(0, 3 * kBlock) == bytes);
  EXPECT_EQ(below.reads.size(), 1u);
  // More than there is room for goes through, as it is.
  EXPECT_EQ(ops.read(1, 5 * kBlock).size(), 5 * kBlock);
  EXPECT_EQ(below.reads.back(), std::make_pair(std::uint64_t{1}, 5 * kBlock));
  EXPECT_EQ(misses(0), 0u);
}

TEST_F(CacheTest, LastBlockMayBeShort) {
  MemStore odd(kBlock + 10);
  test::StoreOps short_ops(loop, on("cache+mem://1?cache.size=16KiB&cache.block=4KiB", odd));
  ASSERT_EQ(short_ops.write(0, pattern(kBlock + 10, 1)).err, 0);
  for (int i = 0; i < 2; ++i)
    EXPECT_TRUE(short_ops.read(0, kBlock + 10) == pattern(kBlock + 10, 1));
}

TEST_F(CacheTest, WritesAndZerosEndWhatIsKept) {
  misses(0);
  misses(1);
  misses(2);
  ASSERT_EQ(ops.write(kBlock - 1, pattern(2, 1)).err, 0);
  EXPECT_EQ(ops.read(kBlock - 1, std::size_t{2}), pattern(2, 1));
  EXPECT_EQ(misses(2), 0u);
  ASSERT_EQ(ops.zero(0, 16 * kBlock).err, 0);
  EXPECT_EQ(ops.read(kBlock - 1, std::size_t{2}), std::vector<std::byte>(2));
  EXPECT_EQ(misses(2), 1u);
}

TEST_F(CacheTest, FailedWriteLeavesNothingKept) {
  misses(0);
  below.automatic = false;
  Pending write;
  const auto bytes = pattern(100, 1);
  cache.write(0, bytes, write.done());
  below.carry_out(0);  // it may well have been, before it failed
  below.complete(0, EIO);
  EXPECT_EQ(write.outcome.err, EIO);
  below.automatic = true;
  EXPECT_EQ(ops.read(0, std::size_t{100}), bytes);
}

TEST_F(CacheTest, ReadThatAWriteOvertookIsNotKept) {
  for (const bool read_first : {false, true}) {
    below.automatic = false;
    Pending read, write;
    std::vector<std::byte> old(kBlock);
    const auto bytes = pattern(kBlock, read_first);
    if (read_first) cache.read(0, old, read.done());
    cache.write(0, bytes, write.done());
    if (!read_first) cache.read(0, old, read.done());
    // The read sees the bytes before, the write is the first to end.
    const std::size_t reading = read_first ? 0 : 1;
    below.carry_out(reading);
    below.carry_out(1 - reading);
    below.complete(1 - reading);
    below.complete(0);
    EXPECT_TRUE(read.over && write.over);
    below.automatic = true;
    EXPECT_TRUE(ops.read(0, kBlock) == bytes) << read_first;
    ASSERT_EQ(ops.zero(0, kBlock).err, 0);
  }
}

TEST_F(CacheTest, WriteElsewhereDoesNotKeepAReadFromBeingKept) {
  below.automatic = false;
  Pending read, write;
  std::vector<std::byte> bytes(kBlock);
  cache.read(0, bytes, read.done());
  const auto other = pattern(1, 1);
  cache.write(kBlock, other, write.done());
  below.complete(1);
  below.complete(0);
  below.automatic = true;
  EXPECT_EQ(misses(0), 0u);
}

TEST_F(CacheTest, StoreThatWasLostOrHasLostSomethingIsReadAnew) {
  misses(0);
  below.new_epoch();
  EXPECT_EQ(misses(0), 1u);
  EXPECT_EQ(misses(0), 0u);
  below.automatic = false;
  for (const int err : {EAGAIN, ESTALE}) {
    Pending read;
    std::vector<std::byte> bytes(1);
    cache.read(9 * kBlock, bytes, read.done());
    below.complete(0, err);
    EXPECT_EQ(read.outcome.err, err);
    below.automatic = true;
    EXPECT_EQ(misses(0), 1u) << err;
    below.automatic = false;
  }
  // A read that was under way when the epoch changed is not kept.
  Pending read;
  std::vector<std::byte> bytes(1);
  cache.read(5 * kBlock, bytes, read.done());
  below.new_epoch();
  below.complete(0);
  below.automatic = true;
  EXPECT_EQ(misses(5), 1u);
}

TEST_F(CacheTest, DamageBesideWhatIsAskedForDoesNotMatter) {
  below.automatic = false;
  Pending read;
  std::vector<std::byte> bytes(10);
  cache.read(100, bytes, read.done());
  below.complete(0, EIO);
  ASSERT_EQ(below.waiting.size(), 1u);
  EXPECT_EQ(below.reads.back(), std::make_pair(std::uint64_t{100}, std::uint64_t{10}));
  below.complete(0, EIO);
  EXPECT_EQ(read.outcome.err, EIO);
  EXPECT_EQ(read.completions, 1);
}

TEST_F(FilterTest, CacheNeverGoesBackInTimeUnderConcurrency) {
  constexpr unsigned kSeed = 11;
  constexpr std::uint64_t kBlocks = 8;
  Store& store =
      on("cache+delay+mem://"
         "1?cache.size=16KiB&cache.block=4KiB&delay.read=0ms-3ms&delay.write=0ms-3ms",
         base);
  struct Op {
    std::uint64_t block;
    bool write;
    std::uint64_t version;  // of a read: the least it may see
    std::uint64_t bytes = 0;
    bool counted = false;
    Pending pending;
  };
  std::mt19937 random(kSeed);
  std::deque<Op> all;
  std::uint64_t issued[kBlocks] = {}, done[kBlocks] = {};
  for (int step = 0; step < 3000; ++step) {
    const std::uint64_t block = random() % kBlocks;
    const bool write = random() % 3 == 0;
    all.push_back({block, write, write ? ++issued[block] : done[block], 0, false, {}});
    Op& op = all.back();
    if (write) {
      op.bytes = op.version;
      store.write(block * kBlock, std::as_bytes(std::span(&op.bytes, 1)), op.pending.done());
    } else {
      store.read(block * kBlock, std::as_writable_bytes(std::span(&op.bytes, 1)),
                 op.pending.done());
    }
    if (random() % 8 == 0) loop.until([&] { return all[random() % all.size()].pending.over; });
    for (Op& one : all) {
      if (!one.pending.over || one.counted) continue;
      one.counted = true;
      if (one.write) {
        done[one.block] = std::max(done[one.block], one.version);
      } else {
        ASSERT_GE(one.bytes, one.version) << "seed " << kSeed << ", step " << step;
        ASSERT_LE(one.bytes, issued[one.block]);
      }
    }
  }
  loop.until([&] {
    return std::all_of(all.begin(), all.end(), [](const Op& op) { return op.pending.over; });
  });
}

}  // namespace
}  // namespace rmem::store
