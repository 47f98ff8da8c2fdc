// SPDX-License-Identifier: MIT
// Servers that mean harm, against the real client over real sockets: every operation
// ends, a read that has succeeded has the right bytes, and once the server behaves
// again all is well again.
#include <gtest/gtest.h>

#include <fstream>

#include "base/log.hh"
#include "hostile/transcript.hh"
#include "server/server.hh"
#include "store/remote.hh"
#include "support/loop.hh"
#include "support/proxy.hh"
#include "support/store_ops.hh"
#include "support/temp_dir.hh"

namespace rmem::store {
namespace {

using namespace std::chrono_literals;
using test::Bytes;
using test::Spoiler;

struct Heard final : RemoteStore::Listener {
  int ups = 0, downs = 0, fails = 0;
  Status last;
  void on_up() override { ++ups; }
  void on_down(const Status& reason) override { ++downs, last = reason; }
  void on_failed(const Status& reason) override { ++fails, last = reason; }
};

// The real server behind a proxy that changes what it says.
class HostileServer : public testing::Test {
 protected:
  static constexpr std::uint64_t kSeeds = 400 / test::kSlowness;
  static constexpr std::size_t kSize = 256 << 10;

  void SetUp() override {
    log::set_level(log::Level::kNone);
    contents = test::pattern(kSize, 11);
    std::ofstream(dir / "file", std::ios::binary)
        .write(reinterpret_cast<const char*>(contents.data()), kSize);
    server::ServerOptions options;
    options.state_dir = dir / "state";
    options.session.linger = 10ms;
    options.exports = {*server::ExportSpec::parse("file=file://" + (dir / "file"))};
    server = std::move(server::Server::create(loop.reactor(), options)).value();
    transport::Address at;
    at.path = dir / "back";
    ASSERT_TRUE(server->listen(at).ok());
    proxy = std::make_unique<test::Proxy>(loop, dir / "front", dir / "back");
  }
  void TearDown() override { log::set_level(log::Level::kInfo); }

  std::unique_ptr<RemoteStore> make(RemoteOptions options = {}) {
    options.checksum = true;
    options.backoff_first = 1ms;
    options.backoff_last = 2ms;
    auto address = RemoteAddress::parse("rmem+unix:///file?socket=" + (dir / "front"));
    return std::move(RemoteStore::create(loop.reactor(), *address, options, heard)).value();
  }
  Status open(RemoteStore& store) {
    std::optional<Status> result;
    store.open([&](const Result<Geometry>& opened) { result = opened.status(); });
    EXPECT_TRUE(loop.until([&] { return result.has_value(); })) << "open() never ends";
    return result.value_or(Status());
  }
  Status claim(RemoteStore& store) {
    std::optional<Status> result;
    store.claim({.writer = me}, [&](const Status& claimed) { result = claimed; });
    EXPECT_TRUE(loop.until([&] { return result.has_value(); })) << "claim() never ends";
    return result.value_or(Status());
  }

  test::TempDir dir;
  test::Loop loop;
  Heard heard;
  Bytes contents;
  std::unique_ptr<server::Server> server;
  std::unique_ptr<test::Proxy> proxy;
  const Uuid me = uuid_random();
};

TEST_F(HostileServer, ClosesAtEveryByte) {
  for (std::size_t allowed = 0;; ++allowed) {
    std::size_t left = allowed;
    bool cut = false;
    proxy->to_client = [&](Bytes& piece) {
      if (piece.size() <= left) {
        left -= piece.size();
        return;
      }
      piece.resize(left);
      left = 0;
      if (!std::exchange(cut, true)) loop.reactor().post([&] { proxy->cut(); });
    };
    const auto store = make();
    Status status = open(*store);
    if (status.ok()) status = claim(*store);
    if (status.ok()) {
      test::StoreOps ops(loop, *store);
      const auto bytes = ops.read(100, std::size_t{500});
      EXPECT_TRUE(bytes.empty() || std::equal(bytes.begin(), bytes.end(), &contents[100]));
      if (!bytes.empty() && !cut) break;
    } else {
      EXPECT_NE(status.code(), Code::kOk);
      EXPECT_FALSE(status.cause().empty());
    }
    proxy->to_client = nullptr;
    if (HasFailure()) FAIL() << "after " << allowed << " bytes";
    ASSERT_LT(allowed, 4096u) << "it never got as far as to read";
  }
}

TEST_F(HostileServer, OneMistakeInWhatItSays) {
  const std::uint64_t first = test::seed_of_run();
  std::uint64_t survived = 0;
  for (std::uint64_t seed = first; seed < first + kSeeds; ++seed) {
    SCOPED_TRACE("RMEM_SEED=" + std::to_string(seed));
    Spoiler spoiler(seed);
    // One piece of what it says, some time.
    int wait = static_cast<int>(spoiler.below(14));
    bool spoilt = false;
    proxy->to_client = [&](Bytes& piece) {
      const auto frames = test::frames_of(piece);
      if (spoilt || frames.empty() || wait-- > 0) return;
      spoilt = true;
      // Without any of it that is a server that does not answer: no mistake, and nothing
      // ends it but the deadlines of whoever waits.
      piece = spoiler.spoil(frames, 1);
    };
    heard = Heard();
    const auto store = make({.keep_alive = 50ms, .open_timeout = 150ms});
    Status status = open(*store);
    if (status.ok()) status = claim(*store);
    EXPECT_TRUE(status.ok() || !status.cause().empty());
    if (store->state() == RemoteStore::State::kUp || store->state() == RemoteStore::State::kDown) {
      // Several at once; what is read goes where it belongs and nowhere else.
      constexpr std::size_t kOps = 12, kLength = 3000;
      std::array<test::Pending, kOps> pending;
      std::array<Bytes, kOps> room;
      for (std::size_t i = 0; i < kOps; ++i) {
        room[i].assign(kLength + 64, std::byte{0});
        const std::uint64_t at = spoiler.below(kSize - kLength);
        const auto urgency = i % 2 != 0 ? Urgency::kDemand : Urgency::kBulk;
        if (i % 4 == 3)
          store->write(at, std::span(contents).subspan(at, kLength), pending[i].done());
        else
          store->read(at, std::span(room[i]).first(kLength), pending[i].done(), urgency);
        if (i % 4 == 3)
          room[i].clear();
        else
          std::memcpy(&room[i][kLength], &at, sizeof at);
      }
      ASSERT_TRUE(loop.until([&] {
        return std::all_of(pending.begin(), pending.end(),
                           [](const auto& one) { return one.over; });
      })) << "an operation never ends";
      for (std::size_t i = 0; i < kOps; ++i) {
        EXPECT_EQ(pending[i].completions, 1);
        const int err = pending[i].outcome.err;
        // EROFS: the claim may not have come about.
        static constexpr int kKnown[] = {0, EAGAIN, EIO, EINVAL, EROFS, ENOSPC, EBADMSG, ESTALE};
        EXPECT_TRUE(std::count(std::begin(kKnown), std::end(kKnown), err)) << err;
        if (err != 0 || room[i].empty()) continue;
        std::uint64_t at = 0;
        std::memcpy(&at, &room[i][kLength], sizeof at);
        EXPECT_TRUE(std::equal(room[i].begin(), room[i].begin() + kLength, &contents[at]));
      }
    }
    proxy->to_client = nullptr;
    const auto decided = [&] {
      return store->state() == RemoteStore::State::kUp ||
             store->state() == RemoteStore::State::kFailed;
    };
    Bytes bytes(1000);
    for (int err = EAGAIN; err != 0 && store->state() != RemoteStore::State::kIdle;) {
      ASSERT_TRUE(loop.until(decided)) << store->reason().cause();
      if (store->state() == RemoteStore::State::kFailed) {
        // Only for what can never be made good: another store, as it seems when the first
        // OPEN was spoilt, or another writer.
        EXPECT_EQ(heard.fails, 1);
        EXPECT_EQ(heard.last.err(), ESTALE) << heard.last.cause();
        break;
      }
      test::StoreOps ops(loop, *store);
      err = ops.read(7, std::span(bytes)).err;
      ASSERT_TRUE(err == 0 || err == EAGAIN || err == ESTALE) << err;
      if (err != 0) continue;
      EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), &contents[7]));
      ++survived;
    }
    if (HasFailure()) return;
  }
  EXPECT_GT(survived, kSeeds / 2);
}

TEST_F(HostileServer, AByteAtATimeIsGivenUp) {
  std::deque<std::byte> kept;
  proxy->to_client = [&](Bytes& piece) {
    kept.insert(kept.end(), piece.begin(), piece.end());
    piece.assign(1, kept.front());
    kept.pop_front();
  };
  const auto store = make({.open_timeout = 100ms});
  const Status status = open(*store);
  EXPECT_EQ(status.code(), Code::kUnreachable);
  EXPECT_NE(status.cause().find("no answer"), std::string::npos) << status.cause();
}

}  // namespace
}  // namespace rmem::store
