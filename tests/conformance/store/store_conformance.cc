// SPDX-License-Identifier: MIT
// What store.hh promises, asked of every store and over every transport.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>

#include "base/workers.hh"
#include "server/server.hh"
#include "store/local_store.hh"
#include "store/remote.hh"
#include "support/certificates.hh"
#include "support/loop.hh"
#include "support/store_ops.hh"
#include "support/temp_dir.hh"

namespace rmem {
namespace {

using store::Outcome;
using test::pattern;
using test::Pending;

constexpr std::uint64_t kSize = (8 << 20) + 4097;  // not a multiple of anything

struct Kind {
  std::string name;
  std::string uri;        // with DIR for a directory of the test's, SIZE for kSize
  std::string transport;  // empty: not remote
  bool checksum = false;
};

class StoreConformance : public testing::TestWithParam<Kind>, private store::RemoteStore::Listener {
 protected:
  void SetUp() override {
    const Kind& kind = GetParam();
    if (kind.transport.empty()) {
      workers_ = std::move(Workers::create(loop.reactor(), 2)).value();
      const auto spec = store::Spec::parse(uri());
      ASSERT_TRUE(spec.ok()) << spec.status().cause();
      auto local = store::LocalStore::open(loop.reactor(), *workers_, *spec, false);
      ASSERT_TRUE(local.ok()) << local.status().cause();
      local_ = std::move(local).value();
    } else {
      serve(kind);
    }
    if (!IsSkipped()) ops_ = std::make_unique<test::StoreOps>(loop, store());
  }

  std::string uri() const {
    std::string uri = GetParam().uri;
    const auto put = [&](const char* name, const std::string& value) {
      if (const auto at = uri.find(name); at != std::string::npos)
        uri.replace(at, std::strlen(name), value);
    };
    put("DIR", dir_.path());
    put("SIZE", std::to_string(kSize));
    return uri;
  }

  void serve(const Kind& kind) {
    server::ServerOptions options;
    options.state_dir = dir_ / "state";
    options.exports.push_back(*server::ExportSpec::parse("x=" + uri()));
    if (kind.transport.starts_with("tls") || kind.transport.starts_with("quic"))
      options.tls = test::make_tls_files(dir_.path(), kind.transport.ends_with("_psk"));
    auto server = server::Server::create(loop.reactor(), options);
    ASSERT_TRUE(server.ok()) << server.status().cause();
    server_ = std::move(server).value();

    store::RemoteAddress address;
    address.export_name = "x";
    transport::Address at;
    if (kind.transport.starts_with("tls")) at.kind = transport::Address::Kind::kTls;
    if (kind.transport.starts_with("quic")) at.kind = transport::Address::Kind::kQuic;
    address.kind = at.kind;
    if (at.secure()) address.tls_hostname = "localhost";
    if (kind.transport == "unix") {
      at.path = address.socket_path = dir_ / "socket";
    } else {
      at.host = address.host = kind.transport == "tcp6" ? "::1" : "127.0.0.1";
      at.port = 0;
    }
    const Status listening = server_->listen(at);
    if (!listening.ok() && kind.transport == "tcp6")
      GTEST_SKIP() << "no IPv6 here: " << listening.cause();
    ASSERT_TRUE(listening.ok()) << listening.cause();
    if (!at.is_unix()) {
      address.port = server_->addresses().front().port();
    }

    store::RemoteOptions remote_options;
    remote_options.checksum = kind.checksum;
    remote_options.tls = options.tls;
    auto remote = store::RemoteStore::create(loop.reactor(), address, remote_options, *this);
    ASSERT_TRUE(remote.ok()) << remote.status().cause();
    bool opened = false;
    (*remote)->open([&](const Result<store::Geometry>& geometry) {
      EXPECT_TRUE(geometry.ok()) << geometry.status().cause();
      opened = true;
    });
    ASSERT_TRUE(loop.until([&] { return opened; }));
    bool claimed = false;
    (*remote)->claim({.writer = uuid_random()}, [&](const Status& status) {
      EXPECT_TRUE(status.ok()) << status.cause();
      claimed = true;
    });
    ASSERT_TRUE(loop.until([&] { return claimed && (*remote)->lanes() == 2; }));
    EXPECT_EQ((*remote)->checksummed(), kind.checksum);
    remote_ = std::move(remote).value();
  }

  store::Store& store() {
    if (remote_) return *remote_;
    return local_->store();
  }
  test::StoreOps& ops() { return *ops_; }

  test::Loop loop;

 private:
  void on_up() override {}
  void on_down(const Status& reason) override { ADD_FAILURE() << reason.cause(); }
  void on_failed(const Status& reason) override { ADD_FAILURE() << reason.cause(); }

  test::TempDir dir_;
  // The workers go before the store that has jobs there, the client before the
  // server.
  std::unique_ptr<server::Server> server_;
  std::unique_ptr<store::RemoteStore> remote_;
  std::optional<store::LocalStore> local_;
  std::unique_ptr<Workers> workers_;
  std::unique_ptr<test::StoreOps> ops_;
};

TEST_P(StoreConformance, KnowsItsGeometry) {
  EXPECT_EQ(store().geometry().size, kSize);
  EXPECT_FALSE(store().geometry().read_only);
  EXPECT_NE(store().geometry().identity, Uuid{});
  EXPECT_NE(store().geometry().epoch, 0u);
}

TEST_P(StoreConformance, NeverWrittenReadsAsZeros) {
  EXPECT_EQ(ops().read(0, std::size_t{5000}), std::vector<std::byte>(5000));
  EXPECT_EQ(ops().read(kSize - 1, std::size_t{1}), std::vector<std::byte>(1));
}

TEST_P(StoreConformance, UnalignedWriteIsReadBackAndNothingElseChanges) {
  const auto bytes = pattern(70'001, 1);
  ASSERT_EQ(ops().write(65'533, bytes).err, 0);
  EXPECT_EQ(ops().read(65'533, bytes.size()), bytes);
  EXPECT_EQ(ops().read(65'532, std::size_t{1}), std::vector<std::byte>(1));
  EXPECT_EQ(ops().read(65'533 + bytes.size(), std::size_t{1}), std::vector<std::byte>(1));
}

TEST_P(StoreConformance, LastByteIsPartOfIt) {
  const auto bytes = pattern(1, 2);
  ASSERT_EQ(ops().write(kSize - 1, bytes).err, 0);
  EXPECT_EQ(ops().read(kSize - 1, std::size_t{1}), bytes);
}

TEST_P(StoreConformance, LargeTransferArrivesWhole) {
  const auto bytes = pattern((5 << 20) + 17, 3);
  ASSERT_EQ(ops().write(3, bytes).err, 0);
  EXPECT_EQ(ops().read(3, bytes.size()), bytes);
}

TEST_P(StoreConformance, RangesOutsideAreRefused) {
  std::vector<std::byte> bytes(2);
  const std::uint64_t huge = ~std::uint64_t{0};
  EXPECT_EQ(ops().read(kSize - 1, std::span(bytes)).err, EINVAL);
  EXPECT_EQ(ops().read(kSize, std::span(bytes)).err, EINVAL);
  EXPECT_EQ(ops().read(huge, std::span(bytes)).err, EINVAL);
  EXPECT_EQ(ops().write(kSize - 1, bytes).err, EINVAL);
  EXPECT_EQ(ops().write(huge - 1, bytes).err, EINVAL);
  EXPECT_EQ(ops().zero(1, kSize).err, EINVAL);
  EXPECT_EQ(ops().zero(1, huge).err, EINVAL);
}

TEST_P(StoreConformance, EmptyRangesAreRefused) {
  EXPECT_EQ(ops().read(0, std::span<std::byte>()).err, EINVAL);
  EXPECT_EQ(ops().write(0, {}).err, EINVAL);
  EXPECT_EQ(ops().zero(0, 0).err, EINVAL);
}

TEST_P(StoreConformance, ZeroErasesExactlyItsRange) {
  const auto bytes = pattern(300'000, 4);
  ASSERT_EQ(ops().write(1000, bytes).err, 0);
  ASSERT_EQ(ops().zero(50'001, 200'000).err, 0);
  auto expected = bytes;
  std::fill_n(expected.begin() + 49'001, 200'000, std::byte{0});
  EXPECT_EQ(ops().read(1000, bytes.size()), expected);
}

TEST_P(StoreConformance, ZeroOfEverything) {
  ASSERT_EQ(ops().write(0, pattern(100'000, 5)).err, 0);
  ASSERT_EQ(ops().zero(0, kSize).err, 0);
  EXPECT_EQ(ops().read(0, std::size_t{100'000}), std::vector<std::byte>(100'000));
}

TEST_P(StoreConformance, FlushAfterWriteHasTheSameEpoch) {
  const auto bytes = pattern(4096, 6);
  const Outcome written = ops().write(0, bytes);
  const Outcome flushed = ops().flush();
  EXPECT_EQ(written.err, 0);
  EXPECT_EQ(flushed.err, 0);
  EXPECT_NE(written.epoch, 0u);
  EXPECT_EQ(flushed.epoch, written.epoch);
  EXPECT_EQ(store().geometry().epoch, written.epoch);
}

TEST_P(StoreConformance, OverlappingWritesAreAppliedInOrder) {
  // All under way at once, of many sizes, each over the one before.
  std::deque<Pending> pending;
  std::vector<std::vector<std::byte>> sources;
  std::vector<std::byte> expected(1 << 20);
  std::mt19937 random(7);
  for (unsigned i = 0; i < 100; ++i) {
    sources.push_back(pattern(1 + random() % 400'000, i));
    const std::uint64_t offset = random() % (expected.size() - sources.back().size());
    std::copy(sources.back().begin(), sources.back().end(),
              expected.begin() + static_cast<std::ptrdiff_t>(offset));
    if (i % 10 == 9) {
      // Covered by the write behind it, if the order is kept.
      pending.emplace_back();
      store().zero(offset, sources.back().size(), pending.back().done());
    }
    pending.emplace_back();
    store().write(offset, sources.back(), pending.back().done());
  }
  loop.until(
      [&] { return std::all_of(pending.begin(), pending.end(), [](auto& p) { return p.over; }); });
  for (const Pending& one : pending) EXPECT_EQ(one.outcome.err, 0);
  EXPECT_EQ(ops().read(0, expected.size()), expected);
}

TEST_P(StoreConformance, ManySmallOperationsAtOnceCompleteOnce) {
  constexpr std::size_t kCount = 1500;
  std::deque<Pending> writes, reads;
  const auto bytes = pattern(kCount * 100, 8);
  for (std::size_t i = 0; i < kCount; ++i) {
    writes.emplace_back();
    store().write(i * 100, std::span(bytes).subspan(i * 100, 100), writes.back().done());
  }
  const auto all_over = [](auto& all) {
    return std::all_of(all.begin(), all.end(), [](const Pending& one) { return one.over; });
  };
  loop.until([&] { return all_over(writes); });
  std::vector<std::byte> back(bytes.size());
  for (std::size_t i = 0; i < kCount; ++i) {
    reads.emplace_back();
    store().read(i * 100, std::span(back).subspan(i * 100, 100), reads.back().done(),
                 i % 2 ? store::Urgency::kBulk : store::Urgency::kDemand);
  }
  loop.until([&] { return all_over(reads); });
  for (const auto* all : {&writes, &reads})
    for (const Pending& one : *all) {
      EXPECT_EQ(one.completions, 1);
      EXPECT_EQ(one.outcome.err, 0);
    }
  EXPECT_EQ(back, bytes);
}

TEST_P(StoreConformance, CompletionMayStartTheNextOperation) {
  struct Chain {
    store::Store* store;
    std::byte byte{1};
    int left = 500;
    static void next(void* ctx, const Outcome& outcome) {
      auto& self = *static_cast<Chain*>(ctx);
      EXPECT_EQ(outcome.err, 0);
      if (--self.left > 0) self.store->write(0, {&self.byte, 1}, {next, ctx});
    }
  } chain{&store()};
  store().write(0, {&chain.byte, 1}, {Chain::next, &chain});
  loop.until([&] { return chain.left == 0; });
}

TEST_P(StoreConformance, RandomOperationsAgreeWithAModel) {
  constexpr unsigned kSeed = 42;
  std::mt19937 random(kSeed);
  std::vector<std::byte> model(kSize);
  for (unsigned i = 0; i < 300; ++i) {
    const std::uint64_t offset = random() % kSize;
    const std::uint64_t length =
        1 + random() % std::min<std::uint64_t>(random() % 2 ? 600'000 : 5000, kSize - offset);
    const auto first = model.begin() + static_cast<std::ptrdiff_t>(offset);
    // What was written is seen by whatever reads it.
    ops().urgency = random() % 2 ? store::Urgency::kBulk : store::Urgency::kDemand;
    switch (random() % 4) {
      case 0:
      case 1: {
        const auto bytes = pattern(length, i);
        ASSERT_EQ(ops().write(offset, bytes).err, 0) << i;
        std::copy(bytes.begin(), bytes.end(), first);
        break;
      }
      case 2:
        ASSERT_EQ(ops().zero(offset, length).err, 0) << i;
        std::fill_n(first, length, std::byte{0});
        break;
      default:
        ASSERT_TRUE(ops().read(offset, length) ==
                    std::vector(first, first + static_cast<std::ptrdiff_t>(length)))
            << "step " << i << " of seed " << kSeed;
    }
  }
  EXPECT_TRUE(ops().read(0, kSize) == model);
}

std::vector<Kind> kinds() {
  const std::vector<Kind> local = {
      {"mem", "mem://SIZE", ""},
      {"file", "file://DIR/data?size=SIZE", ""},
      {"dir", "dir://DIR/data?size=SIZE", ""},
      // More chunks than a dir store has slots.
      {"dir_of_small_chunks", "dir://DIR/data?size=SIZE&chunk=16KiB", ""},
  };
  // Filters that do nothing, or nothing that the interface does not allow.
  const std::string all_filters =
      "stats+cache+delay+error+dir://DIR/data?size=SIZE&chunk=64KiB&cache.size=1MiB"
      "&delay.read=0ms-1ms&error.read=0";
  std::vector<Kind> all = {
      {"error", "error+mem://SIZE?error.read=0&error.errno=ENOSPC", ""},
      {"delay", "delay+file://DIR/data?size=SIZE&delay.read=0ms-2ms&delay.write=0ms-2ms", ""},
      {"stats", "stats+file://DIR/data?size=SIZE", ""},
      {"cache", "cache+file://DIR/data?size=SIZE&cache.size=256KiB&cache.block=4KiB", ""},
      {"large_cache", "cache+mem://SIZE?cache.size=1GiB", ""},
      {"all_filters", all_filters, ""},
      {"remote_unix_all_filters", all_filters, "unix"},
  };
  all.insert(all.end(), local.begin(), local.end());
  for (const char* transport : {"tcp4", "tcp6", "unix"})
    for (const Kind& kind : local)
      if (kind.name != "dir_of_small_chunks")
        all.push_back({std::string("remote_") + transport + "_" + kind.name, kind.uri, transport});
  for (const char* transport : {"tls_x509", "tls_psk", "quic_x509", "quic_psk"})
    all.push_back({std::string("remote_") + transport, "file://DIR/data?size=SIZE", transport});
  all.push_back({"remote_tcp4_file_checksum", "file://DIR/data?size=SIZE", "tcp4", true});
  return all;
}

INSTANTIATE_TEST_SUITE_P(Stores, StoreConformance, testing::ValuesIn(kinds()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace rmem
