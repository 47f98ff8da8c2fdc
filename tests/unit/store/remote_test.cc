// SPDX-License-Identifier: MIT
// The remote store against the real server, a proxy that misbehaves, and peers
// that are no rmem-server.
#include "store/remote.hh"

#include <gtest/gtest.h>

#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <fstream>
#include <thread>

#include "base/bytes.hh"
#include "base/crc32c.hh"
#include "server/server.hh"
#include "support/allocations.hh"
#include "support/proxy.hh"
#include "support/store_ops.hh"
#include "support/temp_dir.hh"
#include "support/wire_client.hh"
#include "wire/codec.hh"

namespace rmem::store {
namespace {

using namespace std::chrono_literals;
using test::pattern;
using test::Pending;

// What a store has said.
struct Heard final : RemoteStore::Listener {
  int ups = 0, downs = 0, fails = 0;
  Status last_down, failed;
  void on_up() override { ++ups; }
  void on_down(const Status& reason) override { ++downs, last_down = reason; }
  void on_failed(const Status& reason) override { ++fails, failed = reason; }
};

class RemoteStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    std::ofstream(dir / "file") << std::string(1 << 20, 'f');
    server_options.state_dir = dir / "state";
    server_options.session.linger = 30ms;
    server_options.exports = {*server::ExportSpec::parse("mem=mem://16MiB"),
                              *server::ExportSpec::parse("file=file://" + (dir / "file")),
                              *server::ExportSpec::parse("fixed=file://" + (dir / "file") + ",ro")};
    start_server();
  }

  void start_server() {
    server.reset();
    auto made = server::Server::create(loop.reactor(), server_options);
    ASSERT_TRUE(made.ok()) << made.status().cause();
    server = std::move(made).value();
    transport::Address at;
    at.path = dir / "back";
    ASSERT_TRUE(server->listen(at).ok());
    if (!proxy) proxy = std::make_unique<test::Proxy>(loop, dir / "socket", dir / "back");
  }

  // Through the proxy.
  std::unique_ptr<RemoteStore> make(const std::string& name, RemoteOptions options = {}) {
    auto made = RemoteStore::create(
        loop.reactor(), {.socket_path = dir / "socket", .export_name = name}, options, heard);
    EXPECT_TRUE(made.ok()) << made.status().cause();
    return std::move(made).value();
  }
  Status open(RemoteStore& store) {
    std::optional<Status> status;
    store.open([&](const Result<Geometry>& geometry) { status = geometry.status(); });
    loop.until([&] { return status.has_value(); });
    return *status;
  }
  Status claim(RemoteStore& store, const WriterClaim& wanted) {
    std::optional<Status> status;
    store.claim(wanted, [&](const Status& done) { status = done; });
    loop.until([&] { return status.has_value(); });
    return *status;
  }
  Status release(RemoteStore& store) {
    std::optional<Status> status;
    store.release([&](const Status& done) { status = done; });
    loop.until([&] { return status.has_value(); });
    return *status;
  }
  std::unique_ptr<RemoteStore> writer(const std::string& name, RemoteOptions options = {},
                                      unsigned lanes = 2) {
    auto store = make(name, options);
    EXPECT_TRUE(open(*store).ok());
    EXPECT_TRUE(claim(*store, {.writer = me}).ok());
    loop.until([&] { return store->lanes() == lanes; });
    return store;
  }

  test::TempDir dir;
  test::Loop loop;
  Heard heard;
  server::ServerOptions server_options;
  std::unique_ptr<server::Server> server;
  std::unique_ptr<test::Proxy> proxy;
  const Uuid me = uuid_random();
  const Uuid other = uuid_random();
};

// --- opening ---------------------------------------------------------------------

TEST_F(RemoteStoreTest, PlainTcpToAnotherHostNeedsInsecure) {
  for (const char* host : {"192.0.2.1", "2001:db8::1", "host.example"}) {
    const auto made = RemoteStore::create(
        loop.reactor(), {.host = host, .socket_path = "", .export_name = "x"}, {}, heard);
    ASSERT_FALSE(made.ok()) << host;
    EXPECT_EQ(made.status().code(), Code::kUsage);
    EXPECT_NE(made.status().hint().find("--insecure"), std::string::npos);
    EXPECT_TRUE(RemoteStore::create(loop.reactor(),
                                    {.host = host, .socket_path = "", .export_name = "x"},
                                    {.insecure = true}, heard)
                    .ok());
  }
  for (const char* host : {"127.0.0.1", "::1", "localhost"})
    EXPECT_TRUE(RemoteStore::create(loop.reactor(),
                                    {.host = host, .socket_path = "", .export_name = "x"}, {},
                                    heard)
                    .ok());
}

TEST_F(RemoteStoreTest, OpensAndTellsTheGeometry) {
  const auto store = make("file");
  EXPECT_EQ(store->state(), RemoteStore::State::kIdle);
  ASSERT_TRUE(open(*store).ok());
  EXPECT_EQ(store->state(), RemoteStore::State::kUp);
  EXPECT_EQ(store->geometry().size, 1u << 20);
  EXPECT_NE(store->geometry().identity, Uuid{});
  EXPECT_NE(store->geometry().epoch, 0u);
  EXPECT_FALSE(store->checksummed());
  EXPECT_EQ(heard.ups, 0);
}

TEST_F(RemoteStoreTest, NobodyThereIsUnreachable) {
  proxy.reset();
  const auto store = make("file");
  const Status status = open(*store);
  EXPECT_EQ(status.code(), Code::kUnreachable);
  EXPECT_FALSE(status.hint().empty());
  EXPECT_EQ(store->state(), RemoteStore::State::kIdle);
  EXPECT_EQ(heard.downs, 0);
}

TEST_F(RemoteStoreTest, MissingExportIsNotFoundByName) {
  const auto store = make("nothing");
  const Status status = open(*store);
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_NE(status.cause().find("nothing"), std::string::npos);
}

TEST_F(RemoteStoreTest, ExportThatIsForOthersIsAMatterOfPermission) {
  server_options.exports[0].allow = server::AllowList{{"cn:alice", server::Access::kWrite}};
  ASSERT_TRUE(server->reload(server_options).ok());
  const auto store = make("mem");
  const Status status = open(*store);
  EXPECT_EQ(status.code(), Code::kPermission);
  EXPECT_NE(status.cause().find("not for this peer"), std::string::npos) << status.cause();
  EXPECT_NE(status.hint(), "");
}

TEST_F(RemoteStoreTest, ARightThatIsTakenMayComeBack) {
  const auto store = make("mem");
  ASSERT_TRUE(open(*store).ok());
  auto options = server_options;
  options.exports[0].allow = server::AllowList{};
  ASSERT_TRUE(server->reload(options).ok());
  loop.until([&] { return store->state() == RemoteStore::State::kDown; });
  ASSERT_TRUE(server->reload(server_options).ok());
  loop.until([&] { return store->state() == RemoteStore::State::kUp; });
}

TEST_F(RemoteStoreTest, WritingToAReadOnlyExportIsAMatterOfPermission) {
  const auto store = make("fixed");
  EXPECT_EQ(open(*store).code(), Code::kPermission);
  const auto reader = make("fixed", {.read_only = true});
  ASSERT_TRUE(open(*reader).ok());
  EXPECT_TRUE(reader->geometry().read_only);
  test::StoreOps ops(loop, *reader);
  EXPECT_EQ(ops.read(0, std::size_t{3}), std::vector(3, std::byte{'f'}));
  EXPECT_EQ(ops.write(0, pattern(1, 1)).err, EROFS);
}

TEST_F(RemoteStoreTest, OtherThanExpectedIsCorrupt) {
  const auto probe = make("file");
  ASSERT_TRUE(open(*probe).ok());
  Geometry expected = probe->geometry();
  EXPECT_TRUE(open(*make("file", {.expected = expected})).ok());
  expected.identity[0] ^= 1;
  const auto identity = make("file", {.expected = expected});
  const Status wrong_identity = open(*identity);
  EXPECT_EQ(wrong_identity.code(), Code::kCorrupt);
  EXPECT_EQ(wrong_identity.err(), ESTALE);
  expected = probe->geometry();
  expected.size += 1;
  const auto size = make("file", {.expected = expected});
  EXPECT_EQ(open(*size).code(), Code::kCorrupt);
  EXPECT_EQ(heard.fails, 0);
}

// Answers whatever comes with the same bytes.
struct Impostor final : transport::Listener::Handler, transport::Connection::Handler {
  Impostor(test::Loop& loop, const std::string& path, std::string answer, bool greet = false)
      : answer(std::move(answer)), greet(greet) {
    transport::Address at;
    at.path = path;
    listeners = std::move(transport::SocketListener::listen(loop.reactor(), at, *this)).value();
  }
  void on_accept(std::unique_ptr<transport::Connection> made) override {
    connection = std::move(made);
    connection->attach(*this);
    connection->watch(true, false);
    if (greet) say();
  }
  void on_readable() override {
    std::byte bytes[1000];
    const iovec space = {bytes, sizeof bytes};
    if (connection->receive({&space, 1}).bytes == 0) return connection.reset();
    if (answer == "close") return connection.reset();
    if (!greet) say();
  }
  void say() {
    if (answer.empty()) return;
    const iovec buffer = {answer.data(), answer.size()};
    connection->send({&buffer, 1});
  }
  void on_writable() override {}
  void on_hangup() override { connection.reset(); }
  std::string answer;
  bool greet;
  std::unique_ptr<transport::Connection> connection;
  std::vector<std::unique_ptr<transport::SocketListener>> listeners;
};

TEST_F(RemoteStoreTest, ServersOfOtherProtocolsAreRecognised) {
  proxy.reset();
  for (const auto& [answer, greet] : {std::pair{"SSH-2.0-OpenSSH_9.2p1\r\n", true},
                                      {"HTTP/1.1 400 Bad Request\r\n\r\n", false},
                                      {"\x15\x03\x03\x02\x02\x28", false},
                                      {"close", false}}) {
    const Impostor impostor(loop, dir / "socket", answer, greet);
    const auto store = make("file");
    const Status status = open(*store);
    EXPECT_EQ(status.code(), Code::kFailed) << answer;
    EXPECT_NE(status.cause().find("another protocol"), std::string::npos) << status.cause();
    EXPECT_FALSE(status.hint().empty());
  }
}

TEST_F(RemoteStoreTest, SilentPeerIsUnreachableAfterTheTimeout) {
  proxy.reset();
  const Impostor impostor(loop, dir / "socket", "");
  const auto store = make("file", {.open_timeout = 50ms});
  const Status status = open(*store);
  EXPECT_EQ(status.code(), Code::kUnreachable);
  EXPECT_NE(status.cause().find("no answer"), std::string::npos);
}

TEST_F(RemoteStoreTest, RefusalOfTheVersionIsPassedOn) {
  proxy.reset();
  const std::string text = "no common version: this server speaks versions 7 to 9";
  wire::Header header;
  header.type = wire::Type::kRefuse;
  header.error = wire::error::kVersion;
  header.payload = static_cast<std::uint32_t>(text.size());
  wire::HeaderBytes bytes;
  wire::encode(header, bytes);
  const Impostor impostor(
      loop, dir / "socket",
      std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()) + text);
  const auto store = make("file");
  const Status status = open(*store);
  EXPECT_EQ(status.code(), Code::kFailed);
  EXPECT_NE(status.cause().find("versions 7 to 9"), std::string::npos);
}

TEST_F(RemoteStoreTest, MayBeDestroyedWhileOpening) {
  auto store = make("file");
  int calls = 0;
  store->open([&](const auto& result) {
    ++calls;
    EXPECT_FALSE(result.ok());
  });
  store.reset();
  EXPECT_EQ(calls, 1);
}

// --- claims ----------------------------------------------------------------------

TEST_F(RemoteStoreTest, SecondWriterIsBusyUntilRelease) {
  const auto first = writer("file");
  EXPECT_EQ(first->claim_generation(), 1u);
  const auto second = make("file");
  ASSERT_TRUE(open(*second).ok());
  const Status refused = claim(*second, {.writer = other});
  EXPECT_EQ(refused.code(), Code::kBusy);
  EXPECT_NE(refused.hint().find("--take-over"), std::string::npos);
  EXPECT_EQ(second->state(), RemoteStore::State::kUp);
  EXPECT_TRUE(release(*first).ok());
  EXPECT_EQ(first->state(), RemoteStore::State::kIdle);
  EXPECT_TRUE(claim(*second, {.writer = other}).ok());
}

TEST_F(RemoteStoreTest, WriterThatIsTakenOverFails) {
  const auto old = writer("file");
  const auto young = make("file");
  ASSERT_TRUE(open(*young).ok());
  ASSERT_TRUE(claim(*young, {.writer = other, .take_over = true}).ok());
  test::StoreOps ops(loop, *old);
  EXPECT_EQ(ops.write(0, pattern(10, 1)).err, ESTALE);
  EXPECT_EQ(heard.fails, 1);
  EXPECT_EQ(heard.failed.code(), Code::kBusy);
  EXPECT_EQ(heard.failed.err(), ESTALE);
  EXPECT_EQ(old->state(), RemoteStore::State::kFailed);
  EXPECT_EQ(ops.read(0, std::span<std::byte>()).err, ESTALE);
}

TEST_F(RemoteStoreTest, WriterThatIsTakenOverWhileAwayFailsWhenItIsBack) {
  const auto old = writer("file");
  proxy->black_hole = true;
  proxy->cut();
  loop.until([&] { return heard.downs > 0; });
  {
    auto direct = std::move(RemoteStore::create(
                                loop.reactor(),
                                {.socket_path = dir / "back", .export_name = "file"}, {}, heard))
                      .value();
    ASSERT_TRUE(open(*direct).ok());
    ASSERT_TRUE(claim(*direct, {.writer = other, .take_over = true}).ok());
    ASSERT_TRUE(release(*direct).ok());
  }
  proxy->black_hole = false;
  proxy->cut();
  loop.until([&] { return heard.fails > 0; });
  EXPECT_EQ(heard.failed.code(), Code::kBusy);
  EXPECT_EQ(heard.failed.err(), ESTALE);
}

// --- losing and finding ------------------------------------------------------------

TEST_F(RemoteStoreTest, LostConnectionEndsWhatIsOutstandingWithEagain) {
  const auto store = writer("file");
  std::deque<Pending> all(40);
  std::vector<std::byte> bytes(all.size() * 1000);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto part = std::span(bytes).subspan(i * 1000, 1000);
    if (i % 2 == 0)
      store->read(i * 1000, part, all[i].done());
    else
      store->write(i * 1000, part, all[i].done());
  }
  Pending flush;
  store->flush(flush.done());
  proxy->cut();
  loop.until([&] { return flush.over; });
  for (const Pending& one : all) {
    EXPECT_EQ(one.completions, 1);
    EXPECT_EQ(one.outcome.err, EAGAIN);
  }
  EXPECT_EQ(flush.outcome.err, EAGAIN);
  EXPECT_EQ(store->state(), RemoteStore::State::kDown);
  EXPECT_EQ(heard.downs, 1);
  Pending later;
  store->read(0, std::span(bytes), later.done());
  EXPECT_EQ(later.outcome.err, EAGAIN);
}

TEST_F(RemoteStoreTest, ReconnectsClaimsAgainAndGoesOn) {
  const auto store = writer("file");
  test::StoreOps ops(loop, *store);
  const auto bytes = pattern(100'000, 1);
  ASSERT_EQ(ops.write(5, bytes).err, 0);
  const std::uint64_t epoch = store->geometry().epoch;
  proxy->cut();
  loop.until([&] { return heard.ups == 1; });
  EXPECT_EQ(store->counters().reconnects, 1u);
  EXPECT_EQ(ops.write(0, pattern(5, 2)).err, 0);
  EXPECT_EQ(ops.read(5, bytes.size()), bytes);
  EXPECT_EQ(store->geometry().epoch, epoch);
}

TEST_F(RemoteStoreTest, SurvivesARestartOfTheServerWithAnotherEpoch) {
  const auto store = writer("file");
  test::StoreOps ops(loop, *store);
  ASSERT_EQ(ops.write(0, pattern(10, 1)).err, 0);
  server.reset();
  loop.until([&] { return heard.downs > 0; });
  EXPECT_EQ(heard.last_down.code(), Code::kUnreachable);
  start_server();
  loop.until([&] { return heard.ups == 1; });
  EXPECT_EQ(ops.flush().err, 0);
  EXPECT_EQ(ops.read(0, std::size_t{10}), pattern(10, 1));
}

TEST_F(RemoteStoreTest, MemoryThatWasLostIsNeverTakenForTheOld) {
  const auto store = writer("mem");
  start_server();
  loop.until([&] { return heard.fails > 0; });
  EXPECT_EQ(heard.failed.code(), Code::kCorrupt);
  EXPECT_EQ(heard.failed.err(), ESTALE);
  EXPECT_EQ(store->reason().code(), Code::kCorrupt);
  test::StoreOps ops(loop, *store);
  EXPECT_EQ(ops.write(0, pattern(1, 1)).err, ESTALE);
}

TEST_F(RemoteStoreTest, ReplacedFileIsNeverTakenForTheOld) {
  const auto store = writer("file");
  server.reset();
  std::ofstream(dir / "new") << std::string(1 << 20, 'n');
  ASSERT_EQ(::rename((dir / "new").c_str(), (dir / "file").c_str()), 0);
  start_server();
  loop.until([&] { return heard.fails > 0; });
  EXPECT_EQ(heard.failed.code(), Code::kCorrupt);
}

// The server sends large reads without looking at the bytes.
TEST_F(RemoteStoreTest, FileThatWasCutShortIsAnErrorOfTheRead) {
  const auto store = writer("file");
  test::StoreOps ops(loop, *store);
  EXPECT_EQ(ops.read(0, 1 << 20), std::vector(1 << 20, std::byte{'f'}));
  ASSERT_EQ(::truncate((dir / "file").c_str(), 300'000), 0);
  std::vector<std::byte> bytes(1 << 18);
  EXPECT_EQ(ops.read(1 << 18, std::span(bytes)).err, EIO);
  EXPECT_EQ(ops.read(1 << 19, std::span(bytes)).err, EIO);
  EXPECT_EQ(ops.read(0, 1 << 18), std::vector(1 << 18, std::byte{'f'}));
  EXPECT_EQ(heard.downs, 0);
}

TEST_F(RemoteStoreTest, DeadPeerIsNoticedWithinThreeIntervals) {
  const auto store = writer("file", {.keep_alive = 50ms, .open_timeout = 100ms});
  proxy->black_hole = true;
  const auto start = Reactor::Clock::now();
  loop.until([&] { return heard.downs > 0; });
  EXPECT_LT(Reactor::Clock::now() - start, 2s);  // 150 ms, on a machine that is busy
  EXPECT_EQ(heard.last_down.err(), ETIMEDOUT);
  proxy->black_hole = false;
  loop.until([&] { return heard.ups > 0; });
}

TEST_F(RemoteStoreTest, IdleConnectionIsKeptAlive) {
  server_options.session.silence = 100ms;
  start_server();
  const auto store = writer("file", {.keep_alive = 20ms});
  loop.run_for(300ms);
  EXPECT_EQ(heard.downs, 0);
  EXPECT_EQ(store->state(), RemoteStore::State::kUp);
}

TEST_F(RemoteStoreTest, DamagedReadIsCountedNeverDelivered) {
  const auto store = make("file", {.checksum = true});
  ASSERT_TRUE(open(*store).ok());
  ASSERT_TRUE(store->checksummed());
  proxy->to_client = [&](std::vector<std::byte>& piece) {
    if (piece.size() < 1000) return;
    piece[500] ^= std::byte{4};
    proxy->to_client = nullptr;
  };
  test::StoreOps ops(loop, *store);
  std::vector<std::byte> bytes(4096);
  EXPECT_EQ(ops.read(0, std::span(bytes)).err, EAGAIN);
  EXPECT_EQ(store->counters().checksum_errors, 1u);
  EXPECT_EQ(heard.last_down.err(), EBADMSG);
  loop.until([&] { return heard.ups > 0; });
  EXPECT_EQ(ops.read(0, std::size_t{4096}), std::vector(4096, std::byte{'f'}));
}

// --- payloads that their receiver takes -------------------------------------------

// What the module does, in this process and into memory.
struct Module final : Receiver {
  explicit Module(std::size_t size) : bytes(size) {}
  std::vector<std::byte> bytes;
  std::size_t most = SIZE_MAX;         // by one call
  std::uint64_t refuses_from = ~0ull;  // an offset
  std::uint64_t next = 0;
  int calls = 0;
  bool was_zeros = false;
  int wholes = 0;

  bool whole(void* ctx, std::span<const std::byte> all) override {
    EXPECT_EQ(ctx, this);
    EXPECT_EQ(all.size(), bytes.size());
    std::ranges::copy(all, bytes.begin());
    ++wholes;
    return refuses_from != 0;
  }
  bool zeros(void* ctx) override {
    EXPECT_EQ(ctx, this);
    std::ranges::fill(bytes, std::byte{0});
    was_zeros = true;
    return refuses_from != 0;
  }
  Taken receive(void* ctx, std::uint64_t offset, std::uint64_t length, int socket,
                const std::optional<std::uint32_t>& checksum) override {
    EXPECT_EQ(ctx, this);
    if (offset == 0) next = 0;
    EXPECT_EQ(offset, next);
    EXPECT_EQ(offset + length, bytes.size());
    ++calls;
    if (offset >= refuses_from) return {0, false, ENOENT};
    const ssize_t got =
        ::recv(socket, bytes.data() + offset, std::min<std::size_t>(length, most), MSG_DONTWAIT);
    if (got == 0) return {0, true, 0};
    if (got < 0) return {0, errno != EAGAIN, errno};
    next += static_cast<std::uint64_t>(got);
    Taken taken{static_cast<std::uint64_t>(got), false, EAGAIN};
    if (next == bytes.size()) taken.err = checksum && crc32c(bytes) != *checksum ? EBADMSG : 0;
    return taken;
  }
};

TEST_F(RemoteStoreTest, ReceiversTakeTheirPayloadsAndNothingElse) {
  for (const bool checksum : {false, true}) {
    const auto store = writer("mem", {.checksum = checksum});
    test::StoreOps ops(loop, *store);
    const auto content = pattern(8 << 20, 3);
    ASSERT_EQ(ops.write(0, content).err, 0);
    EXPECT_TRUE(store->can_receive(16 << 10));
    EXPECT_FALSE(store->can_receive((16 << 10) - 1));
    EXPECT_TRUE(store->can_receive(wire::kMaxPayload));
    EXPECT_FALSE(store->can_receive(wire::kMaxPayload + 1));

    // Among ordinary reads and writes, and taken in pieces of all kinds.
    const std::size_t sizes[] = {16 << 10, 256 << 10, 100'001, 2 << 20, 64 << 10, 70'000};
    std::deque<Module> modules;
    std::deque<Pending> received, read, written;
    std::deque<std::vector<std::byte>> into;
    for (std::size_t i = 0; i < std::size(sizes); ++i) {
      modules.emplace_back(sizes[i]).most = i % 2 ? 1000 : SIZE_MAX;
      store->receive(i * 1'000'001, sizes[i], modules[i], &modules[i],
                     received.emplace_back().done());
      store->read(i * 300'000, into.emplace_back(i * 9000 + 1), read.emplace_back().done());
      store->write((12 << 20) + i, std::span(content).first(10), written.emplace_back().done());
    }
    loop.until([&] {
      return std::ranges::all_of(received, &Pending::over) &&
             std::ranges::all_of(read, &Pending::over) &&
             std::ranges::all_of(written, &Pending::over);
    });
    for (std::size_t i = 0; i < std::size(sizes); ++i) {
      EXPECT_EQ(received[i].outcome.err, 0);
      EXPECT_EQ(received[i].outcome.epoch, store->geometry().epoch);
      EXPECT_TRUE(std::ranges::equal(modules[i].bytes,
                                     std::span(content).subspan(i * 1'000'001, sizes[i])));
      EXPECT_EQ(read[i].outcome.err, 0);
      EXPECT_TRUE(
          std::ranges::equal(into[i], std::span(content).subspan(i * 300'000, into[i].size())));
    }
    EXPECT_EQ(heard.downs, 0);
    ASSERT_TRUE(release(*store).ok());
  }
}

// Through a connection that is slow enough for it, and back. When it is found out to pay is a
// matter of time, which other programs take, too: so until it is.
TEST_F(RemoteStoreTest, SlowConnectionsCompressBothWays) {
  constexpr std::size_t kSize = 4 << 20, kPart = 1 << 20;
  constexpr int kRounds = 100;
  std::vector<std::byte> content(kSize);
  for (std::size_t i = 0; i < kSize; ++i) content[i] = static_cast<std::byte>(i >> 8 | i >> 16);
  std::ranges::copy(pattern(kPart / 2, 9), content.begin() + kPart);
  const auto slowly = [](std::vector<std::byte>& piece) {
    std::this_thread::sleep_for(piece.size() * 40ns);
  };
  for (const auto& [by, checksum] :
       {std::pair(Compression::kLz4, false), std::pair(Compression::kZstd, true)}) {
    const auto store = writer("mem", {.compression = by, .checksum = checksum});
    test::StoreOps ops(loop, *store);
    const auto saved = [&] { return store->counters().bytes_saved; };
    proxy->to_server = slowly;
    for (int round = 0; round < kRounds && saved() == 0; ++round)
      ASSERT_EQ(ops.write(0, content).err, 0);
    EXPECT_GT(saved(), 0u);
    proxy->to_server = nullptr;

    proxy->to_client = slowly;
    std::vector<std::byte> back(kSize);
    const std::uint64_t before = saved();
    for (int round = 0; round < kRounds && saved() == before; ++round) {
      std::ranges::fill(back, std::byte{0});
      ASSERT_EQ(ops.read(0, std::span(back)).err, 0);
      ASSERT_TRUE(back == content);
    }
    EXPECT_GT(saved(), before);

    int wholes = 0;
    for (int round = 0; round < kRounds && wholes == 0; ++round) {
      std::deque<Module> modules;
      std::deque<Pending> received;
      for (std::size_t at = 0; at < kSize; at += kPart) {
        Module& module = modules.emplace_back(kPart);
        store->receive(at, kPart, module, &module, received.emplace_back().done());
      }
      loop.until([&] { return std::ranges::all_of(received, &Pending::over); });
      for (std::size_t i = 0; i < modules.size(); ++i) {
        EXPECT_EQ(received[i].outcome.err, 0);
        EXPECT_TRUE(
            std::ranges::equal(modules[i].bytes, std::span(content).subspan(i * kPart, kPart)));
        wholes += modules[i].wholes;
      }
    }
    EXPECT_GT(wholes, 0);
    EXPECT_EQ(heard.downs, 0);
    proxy->to_client = nullptr;
    ASSERT_TRUE(release(*store).ok());
  }
}

// A READ of zeros is answered without them, with and without checksums, to whoever takes them.
TEST_F(RemoteStoreTest, ZerosTravelWithoutBeingSent) {
  for (const bool checksum : {false, true}) {
    const auto store = writer("mem", {.checksum = checksum});
    test::StoreOps ops(loop, *store);
    ASSERT_EQ(ops.zero(0, 1 << 20).err, 0);
    std::vector<std::byte> last(1, std::byte{'x'});
    ASSERT_EQ(ops.write((256 << 10) - 1, last).err, 0);

    Module zeros(64 << 10), not_quite(64 << 10), unwilling(64 << 10);
    std::ranges::fill(zeros.bytes, std::byte{'?'});
    unwilling.refuses_from = 0;
    Pending first, second, third;
    store->receive(0, zeros.bytes.size(), zeros, &zeros, first.done());
    store->receive(192 << 10, not_quite.bytes.size(), not_quite, &not_quite, second.done());
    store->receive(0, unwilling.bytes.size(), unwilling, &unwilling, third.done());
    loop.until([&] { return first.over && second.over && third.over; });
    EXPECT_EQ(first.outcome.err, 0);
    EXPECT_EQ(first.outcome.epoch, store->geometry().epoch);
    EXPECT_TRUE(zeros.was_zeros);
    EXPECT_EQ(zeros.calls, 0);
    EXPECT_EQ(zeros.bytes, std::vector<std::byte>(64 << 10));
    EXPECT_EQ(second.outcome.err, 0);
    EXPECT_FALSE(not_quite.was_zeros);
    EXPECT_EQ(not_quite.bytes.back(), std::byte{'x'});
    EXPECT_EQ(third.outcome.err, ECANCELED);
    EXPECT_EQ(store->counters().bytes_read, not_quite.bytes.size());

    // In several slices, of which the first has the byte.
    std::vector<std::byte> into(1 << 20, std::byte{'?'});
    EXPECT_EQ(ops.read(0, std::span(into)).err, 0);
    std::vector<std::byte> expected(1 << 20);
    expected[(256 << 10) - 1] = std::byte{'x'};
    EXPECT_EQ(into, expected);
    EXPECT_EQ(store->counters().bytes_read, not_quite.bytes.size() + wire::kSlice);
    EXPECT_EQ(heard.downs, 0);
    ASSERT_TRUE(release(*store).ok());
  }
}

// --- payloads with a sender ---------------------------------------------------------

// Sends as the module does, from a store's worth of bytes of its own.
struct Pages final : Sender {
  explicit Pages(std::vector<std::byte> content) : bytes(std::move(content)) {}
  std::vector<std::byte> bytes;
  std::size_t most = SIZE_MAX;         // by one call, and then it says that the socket is full
  std::uint64_t ends_at = ~0ull;       // there is no byte behind it
  std::uint64_t waits_at = ~0ull;      // the socket is full from there on
  std::vector<std::uint64_t> offsets;  // of calls

  Sent send(std::uint64_t offset, std::uint64_t length, int socket) override {
    offsets.push_back(offset);
    const std::uint64_t have = ends_at - std::min(offset, ends_at);
    const auto count = std::min({length, have, std::uint64_t{most}});
    if (count == 0) return {0, ENOENT};
    if (offset >= waits_at) return {0, EAGAIN};
    const ssize_t n = ::send(socket, bytes.data() + offset, count, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0) return {0, errno};
    const auto gone = static_cast<std::uint64_t>(n);
    if (gone == length) return {gone, 0};
    return {gone, gone == have ? ENOENT : EAGAIN};
  }
};

TEST_F(RemoteStoreTest, SendersGiveTheirPayloadsAndNothingElse) {
  const auto store = writer("mem");
  test::StoreOps ops(loop, *store);
  EXPECT_TRUE(store->can_send(1 << 20));
  EXPECT_FALSE(store->can_send(4096));
  Pages whole(pattern(16 << 20, 3)), pieces(pattern(16 << 20, 3));
  pieces.most = 5000;

  // Among ordinary reads and writes; longer than a frame and than what a socket holds.
  const std::size_t sizes[] = {16 << 10, 256 << 10, 100'001, 3 << 20, 64 << 10, 70'000};
  std::deque<Pending> sent, read, written;
  std::deque<std::vector<std::byte>> into;
  for (std::size_t i = 0; i < std::size(sizes); ++i) {
    store->send(i * 2'000'001, sizes[i], i % 2 ? whole : pieces, sent.emplace_back().done());
    store->write((15 << 20) + 10 * i, std::span(whole.bytes).subspan((15 << 20) + 10 * i, 10),
                 written.emplace_back().done());
    store->read(i * 300'000, into.emplace_back(i * 9000 + 1), read.emplace_back().done());
  }
  loop.until([&] {
    return std::ranges::all_of(sent, &Pending::over) && std::ranges::all_of(read, &Pending::over) &&
           std::ranges::all_of(written, &Pending::over);
  });
  std::uint64_t bytes = 10 * std::size(sizes);
  for (std::size_t i = 0; i < std::size(sizes); ++i) {
    EXPECT_EQ(sent[i].outcome.err, 0);
    EXPECT_EQ(sent[i].outcome.epoch, store->geometry().epoch);
    EXPECT_EQ(written[i].outcome.err, 0);
    const auto seen = ops.read(i * 2'000'001, sizes[i]);
    EXPECT_TRUE(std::ranges::equal(seen, std::span(whole.bytes).subspan(i * 2'000'001, sizes[i])));
    bytes += sizes[i];
  }
  EXPECT_TRUE(std::ranges::equal(ops.read(15 << 20, 10 * std::size(sizes)),
                                 std::span(whole.bytes).subspan(15 << 20, 10 * std::size(sizes))));
  EXPECT_EQ(store->counters().bytes_written, bytes);
  EXPECT_EQ(heard.downs, 0);
  ASSERT_TRUE(release(*store).ok());
}

// The checksum goes in front of bytes that nobody has seen yet.
TEST_F(RemoteStoreTest, NoSenderWhereThereAreChecksums) {
  const auto store = writer("mem", {.checksum = true});
  EXPECT_FALSE(store->can_send(1 << 20));
  ASSERT_TRUE(release(*store).ok());
  EXPECT_FALSE(store->can_send(1 << 20));
}

// Half a frame is never applied, nor is another one taken for the rest of it.
TEST_F(RemoteStoreTest, SenderThatHasNoMoreEndsTheConnection) {
  const auto store = writer("mem");
  test::StoreOps ops(loop, *store);
  for (const std::uint64_t end : {0, 1, 100'000, 256 << 10, (256 << 10) + 1}) {
    const int ups = heard.ups, downs = heard.downs;
    const auto before = ops.read(0, std::size_t{1 << 20});
    Pages pages(pattern(1 << 20, end + 1));
    pages.ends_at = end;
    Pending sent, behind;
    store->send(0, 512 << 10, pages, sent.done());
    store->write(700'000, pattern(100, 9), behind.done());
    loop.until([&] { return sent.over && behind.over; });
    EXPECT_EQ(sent.outcome.err, EAGAIN);
    EXPECT_EQ(behind.outcome.err, EAGAIN);
    EXPECT_EQ(heard.downs, downs + 1);
    EXPECT_EQ(heard.last_down.err(), ENOENT);
    loop.until([&] { return heard.ups > ups; });
    // Whole frames only.
    const auto after = ops.read(0, std::size_t{1 << 20});
    const std::size_t applied = end / (256 << 10) * (256 << 10);
    EXPECT_TRUE(
        std::ranges::equal(std::span(after).subspan(applied), std::span(before).subspan(applied)));
  }
  // And from its first byte again.
  Pages pages(pattern(1 << 20, 77));
  Pending sent;
  store->send(0, 512 << 10, pages, sent.done());
  loop.until([&] { return sent.over; });
  EXPECT_EQ(sent.outcome.err, 0);
  EXPECT_EQ(pages.offsets.front(), 0u);
  EXPECT_TRUE(std::ranges::equal(ops.read(0, std::size_t{512 << 10}),
                                 std::span(pages.bytes).first(512 << 10)));
  loop.until([&] { return store->lanes() == 2; });
  ASSERT_TRUE(release(*store).ok());
}

// A read is not sent in the middle of a payload, but behind it, before the rest.
TEST_F(RemoteStoreTest, ReadsOvertakeWhatSendersHaveNotBegun) {
  const auto store = writer("mem");
  Pages pages(pattern(4 << 20, 5));
  pages.most = pages.waits_at = 50'000;
  Pending sent, read;
  std::vector<std::byte> into(10);
  store->send(0, 4 << 20, pages, sent.done());
  loop.until([&] { return pages.offsets.size() > 1; });
  store->read(5 << 20, into, read.done());
  pages.waits_at = 256 << 10;  // the second frame
  loop.until([&] { return read.over; });
  EXPECT_EQ(read.outcome.err, 0);
  EXPECT_FALSE(sent.over);
  pages.waits_at = ~0ull;
  loop.until([&] { return sent.over; });
  EXPECT_EQ(sent.outcome.err, 0);
  test::StoreOps ops(loop, *store);
  EXPECT_EQ(ops.read(0, std::size_t{4 << 20}), pages.bytes);
  ASSERT_TRUE(release(*store).ok());
}

TEST_F(RemoteStoreTest, ReceiverThatWantsNoMoreDisturbsNobody) {
  const auto store = make("file");
  ASSERT_TRUE(open(*store).ok());
  for (const std::uint64_t from : {0, 1, 70'000}) {
    Module refusing(256 << 10), other(64 << 10);
    refusing.refuses_from = from;
    refusing.most = 10'000;
    Pending one, two;
    store->receive(0, refusing.bytes.size(), refusing, &refusing, one.done());
    store->receive(0, other.bytes.size(), other, &other, two.done());
    loop.until([&] { return one.over && two.over; });
    EXPECT_EQ(one.outcome.err, ECANCELED);
    EXPECT_EQ(two.outcome.err, 0);
    EXPECT_EQ(other.bytes, std::vector(64 << 10, std::byte{'f'}));
  }
  EXPECT_EQ(heard.downs, 0);
}

TEST_F(RemoteStoreTest, DamageThatTheReceiverFindsEndsTheConnection) {
  const auto store = make("file", {.checksum = true});
  ASSERT_TRUE(open(*store).ok());
  proxy->to_client = [&](std::vector<std::byte>& piece) {
    if (piece.size() < 1000) return;
    piece[500] ^= std::byte{4};
    proxy->to_client = nullptr;
  };
  Module module(64 << 10), behind(64 << 10);
  Pending one, two;
  store->receive(0, module.bytes.size(), module, &module, one.done());
  store->receive(0, behind.bytes.size(), behind, &behind, two.done());
  loop.until([&] { return one.over && two.over; });
  EXPECT_EQ(one.outcome.err, EAGAIN);
  EXPECT_EQ(two.outcome.err, EAGAIN);
  EXPECT_EQ(store->counters().checksum_errors, 1u);
  EXPECT_EQ(heard.last_down.err(), EBADMSG);
  loop.until([&] { return heard.ups > 0; });
}

// Short, or never: the server that stops in the middle of a payload.
TEST_F(RemoteStoreTest, PayloadThatEndsInTheMiddleIsNoAnswer) {
  for (const bool silent : {false, true}) {
    const auto store = make("file", {.keep_alive = 50ms, .open_timeout = 100ms});
    ASSERT_TRUE(open(*store).ok());
    const int downs = heard.downs;
    proxy->to_client = [&](std::vector<std::byte>& piece) {
      if (piece.size() > 1000) piece.resize(1000);
      proxy->black_hole = true;
      if (!silent) loop.reactor().post([&] { proxy->cut(); });
    };
    Module module(64 << 10);
    Pending one;
    store->receive(0, module.bytes.size(), module, &module, one.done());
    loop.until([&] { return one.over; });
    EXPECT_EQ(one.outcome.err, EAGAIN);
    EXPECT_LE(module.next, 1000u);
    EXPECT_EQ(heard.downs, downs + 1);
    EXPECT_EQ(heard.last_down.err(), silent ? ETIMEDOUT : ECONNRESET);
    proxy->to_client = nullptr;
    proxy->black_hole = false;
    const int ups = heard.ups;
    loop.until([&] { return heard.ups > ups; });
    Module again(64 << 10);
    Pending two;
    store->receive(0, again.bytes.size(), again, &again, two.done());
    loop.until([&] { return two.over; });
    EXPECT_EQ(again.bytes, std::vector(64 << 10, std::byte{'f'}));
  }
}

TEST_F(RemoteStoreTest, DamagedWriteIsNotApplied) {
  const auto store = writer("file", {.checksum = true});
  proxy->to_server = [&](std::vector<std::byte>& piece) {
    piece.back() ^= std::byte{4};
    proxy->to_server = nullptr;
  };
  test::StoreOps ops(loop, *store);
  EXPECT_EQ(ops.write(0, pattern(4096, 1)).err, EAGAIN);
  loop.until([&] { return heard.ups > 0; });
  EXPECT_EQ(ops.read(0, std::size_t{4096}), std::vector(4096, std::byte{'f'}));
}

TEST_F(RemoteStoreTest, DamagedHeaderEndsTheConnection) {
  const auto store = make("file");
  ASSERT_TRUE(open(*store).ok());
  proxy->to_client = [&](std::vector<std::byte>& piece) {
    piece[30] ^= std::byte{1};  // of the offset
    proxy->to_client = nullptr;
  };
  test::StoreOps ops(loop, *store);
  std::vector<std::byte> bytes(10);
  EXPECT_EQ(ops.read(0, std::span(bytes)).err, EAGAIN);
  loop.until([&] { return heard.ups > 0; });
}

TEST_F(RemoteStoreTest, CloseAndDestructionEndWhatIsOutstanding) {
  auto store = writer("file");
  std::vector<std::byte> bytes(100);
  Pending one, two;
  store->read(0, std::span(bytes), one.done());
  store->close();
  EXPECT_EQ(one.outcome.err, EAGAIN);
  EXPECT_EQ(store->state(), RemoteStore::State::kIdle);
  ASSERT_TRUE(open(*store).ok());
  store->read(0, std::span(bytes), two.done());
  store.reset();
  EXPECT_EQ(two.outcome.err, EAGAIN);
}

TEST_F(RemoteStoreTest, CompletionMayCloseTheStore) {
  const auto store = writer("file");
  struct Closer {
    RemoteStore* store;
    int calls = 0;
  } closer{store.get()};
  std::vector<std::byte> bytes(100);
  for (int i = 0; i < 10; ++i)
    store->read(0, std::span(bytes),
                {[](void* ctx, const Outcome&) {
                   auto& self = *static_cast<Closer*>(ctx);
                   if (++self.calls == 1) self.store->close();
                 },
                 &closer});
  loop.until([&] { return closer.calls == 10; });
  EXPECT_EQ(store->state(), RemoteStore::State::kIdle);
}

TEST_F(RemoteStoreTest, ReleaseWithoutAServerSaysThatTheClaimStays) {
  const auto store = writer("file");
  proxy->black_hole = true;
  proxy->cut();
  loop.until([&] { return heard.downs > 0; });
  const Status status = release(*store);
  EXPECT_EQ(status.code(), Code::kUnreachable);
  EXPECT_EQ(store->state(), RemoteStore::State::kIdle);
}

// --- lanes -------------------------------------------------------------------------

// With the proxy's connections 1 and 2 as its bulk and its page lane.
class RemoteStoreLanesTest : public RemoteStoreTest {
 protected:
  void both(const RemoteStore& store) {
    loop.until([&] { return store.lanes() == 2; });
    EXPECT_EQ(proxy->connections, 2);
  }
  std::vector<std::byte> bytes = std::vector<std::byte>(100'000);
  const std::vector<std::byte> content = std::vector(100'000, std::byte{'f'});
};

TEST_F(RemoteStoreLanesTest, DemandDoesNotWaitBehindBulk) {
  for (const bool read_only : {false, true}) {
    proxy->connections = 0;
    const auto store = read_only ? make("file", {.read_only = true}) : writer("file");
    if (read_only) {
      ASSERT_TRUE(open(*store).ok());
    }
    both(*store);
    proxy->stuck = 1;
    std::vector<std::byte> into(1000);
    const std::vector<std::byte> written = pattern(1000, 1);
    Module module(64 << 10);
    Pending bulk, write, demand, received;
    store->read(0, into, bulk.done());
    if (!read_only) store->write(500'000, written, write.done());
    store->read(0, bytes, demand.done(), Urgency::kDemand);
    store->receive(0, module.bytes.size(), module, &module, received.done(), Urgency::kDemand);
    loop.until([&] { return demand.over && received.over; });
    EXPECT_EQ(bytes, content);
    EXPECT_EQ(module.bytes, std::vector(64 << 10, std::byte{'f'}));
    EXPECT_FALSE(bulk.over);
    EXPECT_FALSE(write.over);
    store->close();
    EXPECT_EQ(bulk.outcome.err, EAGAIN);
    proxy->stuck = 0;
  }
}

TEST_F(RemoteStoreLanesTest, WhatThePageLaneHadGoesOnByTheBulkLane) {
  const auto store = writer("file");
  both(*store);
  proxy->stuck = 2;
  // More than there are places.
  std::deque<Pending> reads(100);
  std::vector<std::byte> one(100);
  Module module(64 << 10);
  Pending whole, received;
  for (Pending& read : reads) store->read(0, one, read.done(), Urgency::kDemand);
  store->read(0, bytes, whole.done(), Urgency::kDemand);
  store->receive(0, module.bytes.size(), module, &module, received.done(), Urgency::kDemand);
  loop.run_for(1ms);
  EXPECT_FALSE(whole.over);
  proxy->cut(2);
  loop.until(
      [&] { return whole.over && received.over && std::ranges::all_of(reads, &Pending::over); });
  EXPECT_EQ(bytes, content);
  EXPECT_EQ(module.bytes, std::vector(64 << 10, std::byte{'f'}));
  for (const Pending& read : reads) EXPECT_EQ(read.outcome.err, 0);
  EXPECT_EQ(heard.downs, 0);
  EXPECT_EQ(store->counters().page_lanes_lost, 1u);
  // And there is another page lane soon.
  loop.until([&] { return store->lanes() == 2; });
  EXPECT_EQ(proxy->connections, 3);
  proxy->stuck = 1;
  Pending demand;
  store->read(0, bytes, demand.done(), Urgency::kDemand);
  loop.until([&] { return demand.over; });
  EXPECT_EQ(demand.outcome.err, 0);
}

// In the middle of a payload that the module was receiving.
TEST_F(RemoteStoreLanesTest, PayloadThatThePageLaneLostStartsOver) {
  const auto store = make("file", {.read_only = true, .checksum = true});
  ASSERT_TRUE(open(*store).ok());
  both(*store);
  proxy->to_client = [&](std::vector<std::byte>& piece) {
    if (piece.size() < 1000) return;
    piece.resize(1000);
    proxy->stuck = 2;
    proxy->to_client = nullptr;
    loop.reactor().post([&] { proxy->cut(2); });
  };
  Module module(64 << 10);
  Pending received;
  store->receive(0, module.bytes.size(), module, &module, received.done(), Urgency::kDemand);
  loop.until([&] { return received.over; });
  EXPECT_EQ(received.outcome.err, 0);
  EXPECT_EQ(module.bytes, std::vector(64 << 10, std::byte{'f'}));
  EXPECT_GT(module.calls, 1);
  EXPECT_EQ(heard.downs, 0);
}

TEST_F(RemoteStoreLanesTest, DamageOnThePageLaneIsCountedAndReadAgain) {
  const auto store = make("file", {.read_only = true, .checksum = true});
  ASSERT_TRUE(open(*store).ok());
  both(*store);
  proxy->to_client = [&](std::vector<std::byte>& piece) {
    if (piece.size() < 1000) return;
    piece[500] ^= std::byte{4};
    proxy->to_client = nullptr;
  };
  Pending read;
  store->read(0, bytes, read.done(), Urgency::kDemand);
  loop.until([&] { return read.over; });
  EXPECT_EQ(read.outcome.err, 0);
  EXPECT_EQ(bytes, content);
  EXPECT_EQ(store->counters().checksum_errors, 1u);
  EXPECT_EQ(heard.downs, 0);
}

TEST_F(RemoteStoreLanesTest, BothEndWithTheBulkLane) {
  const auto store = writer("file");
  both(*store);
  proxy->stuck = 2;
  Pending demand;
  store->read(0, bytes, demand.done(), Urgency::kDemand);
  proxy->cut(1);
  loop.until([&] { return demand.over; });
  EXPECT_EQ(demand.outcome.err, EAGAIN);
  EXPECT_EQ(heard.downs, 1);
  EXPECT_EQ(store->lanes(), 0u);
  loop.until([&] { return store->lanes() == 2; });
  EXPECT_EQ(heard.ups, 1);
  EXPECT_EQ(store->counters().page_lanes_lost, 0u);
  test::StoreOps ops(loop, *store);
  ops.urgency = Urgency::kDemand;
  EXPECT_EQ(ops.read(0, content.size()), content);
}

TEST_F(RemoteStoreLanesTest, SilentPageLaneIsNoticedWithinThreeIntervals) {
  const auto store = writer("file", {.keep_alive = 50ms});
  both(*store);
  proxy->stuck = 2;
  Pending demand;
  store->read(0, bytes, demand.done(), Urgency::kDemand);
  loop.until([&] { return demand.over; });
  EXPECT_EQ(demand.outcome.err, 0);
  EXPECT_EQ(heard.downs, 0);
}

TEST_F(RemoteStoreLanesTest, ServerThatKnowsNoLanesGetsOneConnection) {
  proxy->to_client = [&](std::vector<std::byte>& hello) {
    hello.at(wire::kHeaderBytes + 8) &= ~std::byte{wire::feature::kLanes};
    proxy->to_client = nullptr;
  };
  const auto store = writer("file", {}, 1);
  loop.run_for(100ms);
  EXPECT_EQ(store->lanes(), 1u);
  EXPECT_EQ(proxy->connections, 1);
  test::StoreOps ops(loop, *store);
  ops.urgency = Urgency::kDemand;
  EXPECT_EQ(ops.read(0, content.size()), content);
  // There is nothing to overtake, or no way to.
  EXPECT_TRUE(store->overtakes());
  Pending bulk;
  store->read(0, bytes, bulk.done());
  EXPECT_FALSE(store->overtakes());
  loop.until([&] { return bulk.over; });
  EXPECT_TRUE(store->overtakes());
}

TEST_F(RemoteStoreLanesTest, ServerWithoutRoomGetsAPageLaneWhenItHasSome) {
  server_options.limits.connections = 2;
  start_server();
  auto filler = std::make_unique<test::WireClient>(loop, dir / "back");
  ASSERT_EQ(filler->hello().header.error, 0u);
  const auto store = writer("file", {}, 1);
  loop.until([&] { return proxy->connections >= 3; });
  EXPECT_EQ(store->lanes(), 1u);
  test::StoreOps ops(loop, *store);
  ops.urgency = Urgency::kDemand;
  EXPECT_EQ(ops.read(0, content.size()), content);
  filler->disconnect();
  loop.until([&] { return store->lanes() == 2; });
  EXPECT_EQ(heard.downs, 0);
}

TEST_F(RemoteStoreLanesTest, BothLeadToTheSameStore) {
  proxy->to_client = [&](std::vector<std::byte>& piece) {
    // The answer to OPEN, on the page lane.
    if (proxy->connections < 2 || piece.size() != wire::kHeaderBytes + 32) return;
    piece.at(wire::kHeaderBytes + 8) ^= std::byte{1};  // of the identity
    proxy->to_client = nullptr;
  };
  const auto store = writer("file");
  EXPECT_EQ(proxy->connections, 3);
  EXPECT_EQ(heard.downs, 0);
  EXPECT_EQ(heard.fails, 0);
}

TEST_F(RemoteStoreLanesTest, FencedWriterIsToldByThePageLane) {
  const auto old = writer("file");
  both(*old);
  const auto young = make("file");
  ASSERT_TRUE(open(*young).ok());
  ASSERT_TRUE(claim(*young, {.writer = other, .take_over = true}).ok());
  Pending read;
  old->read(0, bytes, read.done(), Urgency::kDemand);
  loop.until([&] { return read.over; });
  EXPECT_EQ(read.outcome.err, ESTALE);
  EXPECT_EQ(heard.fails, 1);
  EXPECT_EQ(heard.failed.code(), Code::kBusy);
  EXPECT_EQ(old->lanes(), 0u);
}

// With four connections for bulk: the proxy's 1, and 3 to 5.
class RemoteStoreSidesTest : public RemoteStoreLanesTest {
 protected:
  std::unique_ptr<RemoteStore> all(const std::string& name, RemoteOptions options = {}) {
    options.bulk_connections = 4;
    auto store = writer(name, options);
    // They come with the first that there is to carry.
    EXPECT_EQ(test::StoreOps(loop, *store).read(0, 100).size(), 100u);
    loop.until([&] { return store->lanes() == 5; });
    EXPECT_EQ(proxy->connections, 5);
    return store;
  }
};

TEST_F(RemoteStoreSidesTest, ShareWhatIsReadAndWrittenInBulk) {
  const auto store = all("file");
  EXPECT_FALSE(store->can_flush_behind());
  proxy->stuck = 1;
  // The first goes where all of them would; then that has more than the others.
  Pending first, read, write, received;
  Module module(64 << 10);
  std::vector<std::byte> into(200'000);
  const std::vector<std::byte> written = pattern(1000, 1);
  store->read(0, into, first.done());
  store->read(0, bytes, read.done());
  store->write(500'000, written, write.done());
  store->receive(0, module.bytes.size(), module, &module, received.done());
  loop.until([&] { return read.over && write.over && received.over; });
  EXPECT_EQ(bytes, content);
  EXPECT_EQ(module.bytes, std::vector(64 << 10, std::byte{'f'}));
  EXPECT_EQ(write.outcome.err, 0);
  EXPECT_FALSE(first.over);
  proxy->stuck = 0;
  store->close();
  EXPECT_EQ(store->lanes(), 0u);
}

// Nobody knows whether the server still has the write of the lost one, and will apply it.
TEST_F(RemoteStoreSidesTest, OneThatIsLostTakesAllAlong) {
  const auto store = all("file");
  proxy->stuck = 4;
  std::deque<Pending> writes(4);
  const std::vector<std::byte> written = pattern(1000, 1);
  for (Pending& write : writes) store->write(0, written, write.done());
  loop.until([&] { return std::ranges::count_if(writes, &Pending::over) == 3; });
  proxy->cut(4);
  loop.until([&] { return std::ranges::all_of(writes, &Pending::over); });
  EXPECT_EQ(std::ranges::count_if(writes, [](auto& one) { return one.outcome.err == EAGAIN; }), 1);
  EXPECT_EQ(heard.downs, 1);
  loop.until([&] { return heard.ups == 1; });
  test::StoreOps ops(loop, *store);
  EXPECT_EQ(ops.write(0, pattern(1000, 2)).err, 0);
  EXPECT_EQ(ops.read(0, 1000), pattern(1000, 2));
  loop.until([&] { return store->lanes() == 5; });
}

TEST_F(RemoteStoreSidesTest, ServerThatKnowsNoneGetsNone) {
  proxy->to_client = [&](std::vector<std::byte>& hello) {
    hello.at(wire::kHeaderBytes + 8) &= ~std::byte{wire::feature::kSides};
    proxy->to_client = nullptr;
  };
  const auto store = writer("file", {.bulk_connections = 4});
  EXPECT_EQ(test::StoreOps(loop, *store).read(0, 100).size(), 100u);
  loop.run_for(50ms);
  EXPECT_EQ(store->lanes(), 2u);
  EXPECT_EQ(proxy->connections, 2);
}

TEST_F(RemoteStoreSidesTest, ServerWithoutRoomGetsFewer) {
  server_options.limits.connections = 4;
  start_server();
  const auto store = writer("file", {.bulk_connections = 4});
  test::StoreOps ops(loop, *store);
  EXPECT_EQ(ops.read(0, 100).size(), 100u);
  loop.until([&] { return store->lanes() == 4 && proxy->connections == 5; });
  loop.run_for(50ms);
  EXPECT_EQ(ops.write(0, pattern(1000, 2)).err, 0);
  EXPECT_EQ(heard.downs, 0);
}

TEST_F(RemoteStoreSidesTest, AreMadeWhereTheServerBacksOffAndThereIsEnough) {
  proxy->to_client = [&](std::vector<std::byte>& hello) {
    hello.at(wire::kHeaderBytes + 8) |= std::byte{wire::feature::kBacksOff};
    proxy->to_client = nullptr;
  };
  const auto store = writer("mem");
  test::StoreOps ops(loop, *store);
  EXPECT_EQ(ops.read(0, 512 << 10).size(), 512u << 10);
  loop.run_for(50ms);
  EXPECT_EQ(store->lanes(), 2u);
  EXPECT_EQ(ops.read(0, 1 << 20).size(), 1u << 20);
  loop.until([&] { return store->lanes() == 9; });
}

TEST_F(RemoteStoreSidesTest, FencedWriterIsToldByASideLane) {
  const auto old = all("file");
  const auto young = make("file");
  ASSERT_TRUE(open(*young).ok());
  ASSERT_TRUE(claim(*young, {.writer = other, .take_over = true}).ok());
  proxy->stuck = 1;
  Pending first, second;
  old->write(0, bytes, first.done());
  old->write(0, bytes, second.done());
  loop.until([&] { return second.over; });
  EXPECT_EQ(second.outcome.err, ESTALE);
  EXPECT_EQ(heard.fails, 1);
}

// What the module does who has been lent the page lane: sends what it is told to.
struct Tasks final : Asker {
  Lane lane;
  std::vector<std::byte> message;
  std::deque<std::uint64_t> cookies;  // not answered
  int begun = 0, paused = 0, losses = 0, nobodys = 0;
  bool may = false, fits = true;
  bool takes = false;  // the answers, where it is left them
  bool taking = false;
  Started started;  // with the bytes of `header`, for pause()
  std::vector<std::byte> header;
  std::vector<int> errors;
  std::vector<std::byte> got;
  Module* module = nullptr;  // takes the payloads

  Begun begin(const Lane& how) override {
    EXPECT_FALSE(may);
    ++begun;
    lane = how;
    message.assign(how.message.begin(), how.message.end());
    may = true;
    taking = takes && !how.answer.header.empty();
    return taking ? Begun::kTakes : Begun::kAsks;
  }
  Started pause(std::span<std::byte> into) override {
    EXPECT_TRUE(may);
    ++paused;
    may = taking = false;
    EXPECT_LE(header.size(), into.size());
    std::ranges::copy(header, into.begin());
    header.clear();
    return std::exchange(started, {});
  }
  void lost(std::uint32_t number) override {
    EXPECT_FALSE(may);
    EXPECT_EQ(number, lane.number);
    ++losses;
    cookies.clear();
  }
  std::optional<void*> awaited(std::uint64_t cookie, std::uint64_t, std::uint64_t) override {
    if (!fits) return std::nullopt;
    const auto it = std::ranges::find(cookies, cookie);
    if (it == cookies.end()) {
      ++nobodys;
      return nullptr;
    }
    cookies.erase(it);
    return module != nullptr ? static_cast<void*>(module) : this;
  }
  void answered(void* ctx, const Outcome& outcome, std::span<const std::byte> bytes) override {
    EXPECT_EQ(ctx, module != nullptr ? static_cast<void*>(module) : this);
    errors.push_back(outcome.err);
    got.assign(bytes.begin(), bytes.end());
  }
  Taken receive(void* ctx, std::uint64_t offset, std::uint64_t length, int socket,
                const std::optional<std::uint32_t>& checksum) override {
    return module->receive(ctx, offset, length, socket, checksum);
  }
  // Not asked for on a page lane.
  bool zeros(void*) override {
    ADD_FAILURE();
    return false;
  }
  bool whole(void*, std::span<const std::byte>) override {
    ADD_FAILURE();
    return false;
  }

  void ask(std::uint64_t cookie, std::uint64_t offset, std::uint64_t length, bool waits = true) {
    ASSERT_TRUE(may);
    store_le(message.data() + lane.cookie_at, cookie);
    store_le(message.data() + lane.offset_at, offset);
    store_le(message.data() + lane.length_at, length);
    store_le(message.data() + lane.checksum_at, crc32c(std::span(message).first(lane.checksum_at)));
    if (waits) cookies.push_back(cookie);
    ASSERT_EQ(::send(lane.socket, message.data(), message.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(message.size()));
  }
};

TEST_F(RemoteStoreLanesTest, ThePageLaneIsLent) {
  for (const bool checksum : {false, true}) {
    proxy->connections = 0;
    const auto store = writer("file", {.checksum = checksum});
    both(*store);
    Tasks tasks;
    store->set_asker(&tasks, 4096);
    loop.until([&] { return tasks.may; });
    const auto read_before = store->counters().bytes_read;
    tasks.ask(1, 0, 4096);
    tasks.ask(2, 4096, 100);
    loop.until([&] { return tasks.errors.size() == 2; });
    EXPECT_EQ(tasks.errors, (std::vector<int>{0, 0}));
    EXPECT_EQ(tasks.got, std::vector(100, std::byte{'f'}));
    EXPECT_EQ(store->counters().bytes_read, read_before + 4196);

    // Beyond the end is an error of that read alone.
    tasks.ask(3, 1 << 20, 4096);
    loop.until([&] { return tasks.errors.size() == 3; });
    EXPECT_EQ(tasks.errors.back(), EINVAL);

    // An answer that nobody waits for any more.
    tasks.ask(4, 0, 4096, false);
    tasks.ask(5, 0, 4096);
    loop.until([&] { return tasks.errors.size() == 4; });
    EXPECT_EQ(tasks.nobodys, 1);

    // What the store has to send itself goes in between.
    EXPECT_EQ(tasks.paused, 0);
    test::StoreOps ops(loop, *store);
    ops.urgency = Urgency::kDemand;
    tasks.ask(6, 0, 4096);
    EXPECT_EQ(ops.read(0, content.size()), content);
    EXPECT_EQ(tasks.paused, 1);
    loop.until([&] { return tasks.may && tasks.errors.size() == 5; });
    EXPECT_EQ(tasks.begun, 2);
    EXPECT_EQ(tasks.losses, 0);

    store->set_asker(nullptr);
    EXPECT_FALSE(tasks.may);
    EXPECT_EQ(tasks.losses, 1);
    EXPECT_EQ(heard.downs, 0);
    EXPECT_EQ(store->counters().page_lanes_lost, 0u);
    ASSERT_TRUE(release(*store).ok());
  }
}

TEST_F(RemoteStoreLanesTest, AnAskerReceivesWhatIsWorthIt) {
  const auto store = make("file", {.read_only = true, .checksum = true});
  ASSERT_TRUE(open(*store).ok());
  Tasks tasks;
  store->set_asker(&tasks, 64 << 10, true);
  both(*store);
  loop.until([&] { return tasks.may; });
  Module module(64 << 10), other(64 << 10);
  module.most = 1000;
  tasks.module = &module;
  Pending received;
  tasks.ask(1, 0, 64 << 10);
  tasks.ask(2, 0, 64 << 10, false);
  store->receive(0, other.bytes.size(), other, &other, received.done(), Urgency::kDemand);
  loop.until([&] { return received.over && tasks.errors.size() == 1; });
  EXPECT_EQ(tasks.errors, std::vector<int>{0});
  EXPECT_TRUE(tasks.got.empty());
  EXPECT_EQ(module.bytes, std::vector(64 << 10, std::byte{'f'}));
  EXPECT_EQ(other.bytes, module.bytes);
  EXPECT_EQ(tasks.nobodys, 1);
  // It may want no more in the middle, and the next one is whole.
  Module refusing(64 << 10);
  refusing.refuses_from = 3000;
  refusing.most = 1000;
  tasks.module = &refusing;
  loop.until([&] { return tasks.may; });
  tasks.ask(3, 0, 64 << 10);
  loop.until([&] { return tasks.errors.size() == 2; });
  EXPECT_EQ(tasks.errors.back(), ECANCELED);
  Module last(64 << 10);
  tasks.module = &last;
  tasks.ask(4, 0, 64 << 10);
  loop.until([&] { return tasks.errors.size() == 3; });
  EXPECT_EQ(last.bytes, other.bytes);
  EXPECT_EQ(heard.downs, 0);
  store->close();
}

// With four connections for pages: the proxy's 2, and 3 to 5.
class RemoteStoreBurstsTest : public RemoteStoreLanesTest {
 protected:
  static constexpr unsigned kConnections = 4;

  std::unique_ptr<RemoteStore> all(const std::string& name, RemoteOptions options = {}) {
    options.page_connections = kConnections;
    auto store = writer(name, options);
    both(*store);
    burst(*store, 2);
    loop.until([&] { return store->lanes() == 5; });
    EXPECT_EQ(proxy->connections, 5);
    return store;
  }
  // So many demands at once.
  void burst(RemoteStore& store, std::size_t count) {
    std::deque<Pending> reads(count);
    std::vector<std::byte> one(100);
    for (Pending& read : reads) store.read(0, one, read.done(), Urgency::kDemand);
    loop.until([&] { return std::ranges::all_of(reads, &Pending::over); });
    for (const Pending& read : reads) EXPECT_EQ(read.outcome.err, 0);
  }
};

TEST_F(RemoteStoreBurstsTest, ShareWhatSomebodyWaitsFor) {
  const auto store = all("file");
  // What nobody waits for is none of their business.
  proxy->stuck = 1;
  Pending bulk;
  store->read(0, bytes, bulk.done());
  burst(*store, 8);
  EXPECT_FALSE(bulk.over);

  proxy->stuck = 2;
  std::deque<Pending> reads(4);
  std::deque<std::vector<std::byte>> into(4, std::vector<std::byte>(1000));
  for (std::size_t i = 0; i < reads.size(); ++i)
    store->read(i, into[i], reads[i].done(), Urgency::kDemand);
  loop.until([&] { return std::ranges::count_if(reads, &Pending::over) == 3; });
  EXPECT_FALSE(reads[0].over);
  for (std::size_t i = 1; i < reads.size(); ++i)
    EXPECT_EQ(into[i], std::vector(1000, std::byte{'f'}));
  proxy->stuck = 0;
  store->close();
  EXPECT_EQ(store->lanes(), 0u);
}

TEST_F(RemoteStoreBurstsTest, WhatOneHadGoesOnElsewhere) {
  const auto store = all("file");
  proxy->stuck = 4;
  std::deque<Pending> reads(8);
  std::vector<std::byte> one(1000);
  for (Pending& read : reads) store->read(0, one, read.done(), Urgency::kDemand);
  loop.until([&] { return std::ranges::count_if(reads, &Pending::over) == 6; });
  proxy->cut(4);
  loop.until([&] { return std::ranges::all_of(reads, &Pending::over); });
  for (const Pending& read : reads) EXPECT_EQ(read.outcome.err, 0);
  EXPECT_EQ(heard.downs, 0);
  EXPECT_EQ(store->lanes(), 4u);
}

TEST_F(RemoteStoreBurstsTest, GoOnWithoutThePageLane) {
  const auto store = all("file");
  proxy->cut(2);
  loop.until([&] { return store->counters().page_lanes_lost == 1; });
  burst(*store, 8);
  loop.until([&] { return store->lanes() == 5; });
  burst(*store, 8);
  EXPECT_EQ(heard.downs, 0);
}

TEST_F(RemoteStoreBurstsTest, ServerWithoutRoomGetsFewer) {
  server_options.limits.connections = 4;
  start_server();
  const auto store = writer("file", {.page_connections = kConnections});
  both(*store);
  burst(*store, 8);
  loop.until([&] { return store->lanes() == 4 && proxy->connections == 5; });
  burst(*store, 8);
  EXPECT_EQ(heard.downs, 0);
}

TEST_F(RemoteStoreBurstsTest, OneDemandAtATimeNeedsNone) {
  const auto store = writer("file", {.page_connections = kConnections});
  both(*store);
  for (int i = 0; i < 20; ++i) burst(*store, 1);
  EXPECT_EQ(store->lanes(), 2u);
  EXPECT_EQ(proxy->connections, 2);
}

// It is not far away.
TEST_F(RemoteStoreBurstsTest, NearServerNeedsNone) {
  const auto store = writer("file");
  both(*store);
  burst(*store, 64);
  loop.run_for(10ms);
  EXPECT_EQ(store->lanes(), 2u);
}

TEST_F(RemoteStoreBurstsTest, AreClosedWhenNobodyNeedsThem) {
  const auto store = all("file", {.burst_lanes_kept = 20ms, .open_timeout = 100ms});
  loop.until([&] { return store->lanes() == 2; });
  burst(*store, 2);
  loop.until([&] { return store->lanes() == 5; });
  EXPECT_EQ(heard.downs, 0);
  EXPECT_EQ(store->counters().page_lanes_lost, 0u);
}

TEST_F(RemoteStoreBurstsTest, LeaveThePageLaneToThoseWhoAsk) {
  const auto store = all("file");
  Tasks tasks;
  store->set_asker(&tasks, 4096);
  loop.until([&] { return tasks.may; });
  EXPECT_GT(tasks.lane.at_once, 0u);
  burst(*store, 3);
  EXPECT_EQ(tasks.paused, 0);
  tasks.ask(1, 0, 4096);
  loop.until([&] { return tasks.errors.size() == 1; });
  store->set_asker(nullptr);
  const auto near = make("file", {.read_only = true});
  ASSERT_TRUE(open(*near).ok());
  near->set_asker(&tasks, 4096);
  loop.until([&] { return tasks.may; });
  EXPECT_EQ(tasks.lane.at_once, 0u);
  near->close();
}

// Takes so much of what comes on the lane.
std::vector<std::byte> take(test::Loop& loop, const Tasks& tasks, std::size_t bytes) {
  std::vector<std::byte> got(bytes);
  loop.until([&] {
    int there = 0;
    return ::ioctl(tasks.lane.socket, FIONREAD, &there) == 0 &&
           static_cast<std::size_t>(there) >= bytes;
  });
  EXPECT_EQ(::recv(tasks.lane.socket, got.data(), bytes, MSG_DONTWAIT),
            static_cast<ssize_t>(bytes));
  return got;
}

TEST_F(RemoteStoreLanesTest, AnAskerTakesTheAnswers) {
  for (const bool checksum : {false, true}) {
    proxy->connections = 0;
    const auto store = make("file", {.read_only = true, .checksum = checksum});
    ASSERT_TRUE(open(*store).ok());
    Tasks tasks;
    tasks.takes = true;
    store->set_asker(&tasks, 4096, true);
    both(*store);
    loop.until([&] { return tasks.taking; });
    EXPECT_EQ(tasks.begun, 1);

    // What is described is what comes.
    const auto& form = tasks.lane.answer;
    ASSERT_EQ(form.header.size(), wire::kHeaderBytes);
    ASSERT_EQ(form.mask.size(), wire::kHeaderBytes);
    tasks.ask(77, 4096, 100, false);
    // Nobody else takes it.
    loop.run_for(20ms);
    const auto answer = take(loop, tasks, wire::kHeaderBytes + 100);
    for (std::size_t i = 0; i < wire::kHeaderBytes; ++i)
      EXPECT_EQ((answer[i] ^ form.header[i]) & form.mask[i], std::byte{0}) << i;
    const auto payload = std::span(answer).subspan(wire::kHeaderBytes);
    EXPECT_EQ(load_le<std::uint64_t>(&answer[form.cookie_at]), 77u);
    EXPECT_EQ(load_le<std::uint64_t>(&answer[form.offset_at]), 4096u);
    EXPECT_EQ(load_le<std::uint64_t>(&answer[form.length_at]), 100u);
    EXPECT_EQ(load_le<std::uint32_t>(&answer[form.payload_at]), 100u);
    EXPECT_EQ(form.payload_checksum_at != 0, checksum);
    if (checksum) {
      EXPECT_EQ(load_le<std::uint32_t>(&answer[form.payload_checksum_at]), crc32c(payload));
    }
    EXPECT_EQ(load_le<std::uint32_t>(&answer[form.checksum_at]),
              crc32c(std::span(answer).first(form.checksum_at)));
    EXPECT_TRUE(std::ranges::all_of(payload, [](std::byte b) { return b == std::byte{'f'}; }));

    // An error has another form.
    tasks.ask(78, 1 << 20, 4096, false);
    const auto error = take(loop, tasks, wire::kHeaderBytes);
    bool same = true;
    for (std::size_t i = 0; i < wire::kHeaderBytes; ++i)
      same &= ((error[i] ^ form.header[i]) & form.mask[i]) == std::byte{0};
    EXPECT_FALSE(same);
    // So the store has to go on behind its header.
    tasks.header = error;
    tasks.started = {.header = error.size()};
    tasks.cookies.push_back(78);
    store->take_answers(tasks.lane.number);
    loop.until([&] { return tasks.errors.size() == 1; });
    EXPECT_EQ(tasks.errors, std::vector<int>{EINVAL});
    // And then it is left the answers again.
    loop.until([&] { return tasks.taking; });
    EXPECT_EQ(heard.downs, 0);
    EXPECT_EQ(tasks.losses, 0);
    store->close();
    EXPECT_EQ(tasks.losses, 1);
  }
}

TEST_F(RemoteStoreLanesTest, AnAnswerGoesOnWhereTheAskerHasStopped) {
  const auto store = make("file", {.read_only = true, .checksum = true});
  ASSERT_TRUE(open(*store).ok());
  Tasks tasks;
  tasks.takes = true;
  store->set_asker(&tasks, 4096, true);
  both(*store);
  int answers = 0;
  // Of a header; of a payload; of both all.
  for (const std::size_t taken : {0, 1, 63, 64, 65, 1000, 64 + 4095}) {
    SCOPED_TRACE(taken);
    loop.until([&] { return tasks.taking; });
    Module module(4096);
    tasks.module = &module;
    tasks.ask(1, 0, 4096);
    auto begin = taken > 0 ? take(loop, tasks, taken) : std::vector<std::byte>();
    if (taken > 64) {
      std::ranges::copy(std::span(begin).subspan(64), module.bytes.begin());
      module.next = taken - 64;
      begin.resize(64);
    }
    tasks.header = begin;
    tasks.started = {.header = begin.size(), .payload = taken > 64 ? taken - 64 : 0};
    store->take_answers(tasks.lane.number);
    loop.until([&] { return static_cast<int>(tasks.errors.size()) == answers + 1; });
    ++answers;
    EXPECT_EQ(tasks.errors.back(), 0);
    EXPECT_EQ(taken > 64 ? module.bytes : tasks.got, std::vector(4096, std::byte{'f'}));
  }
  // Nobody waits for it any more.
  loop.until([&] { return tasks.taking; });
  tasks.ask(2, 0, 4096, false);
  tasks.header = take(loop, tasks, 64 + 10);
  tasks.header.resize(64);
  tasks.started = {.header = 64, .payload = 10};
  store->take_answers(tasks.lane.number);
  loop.until([&] { return tasks.nobodys == 1; });
  loop.until([&] { return tasks.taking; });
  EXPECT_EQ(tasks.losses, 0);

  // All of it, but not as it was sent.
  tasks.ask(3, 0, 4096);
  tasks.header = take(loop, tasks, 64 + 4096);
  tasks.header.resize(64);
  tasks.started = {.header = 64, .payload = 4096, .damaged = true};
  store->take_answers(tasks.lane.number);
  loop.until([&] { return tasks.losses == 1; });
  EXPECT_EQ(store->counters().checksum_errors, 1u);
  EXPECT_EQ(heard.downs, 0);
  store->close();
}

// What the store asks itself it also receives, and leaves the rest when that is over.
TEST_F(RemoteStoreLanesTest, AnswersAreLeftWhileNothingElseIsToCome) {
  const auto store = make("file", {.read_only = true, .keep_alive = 100ms});
  ASSERT_TRUE(open(*store).ok());
  Tasks tasks;
  tasks.takes = true;
  store->set_asker(&tasks, 4096, true);
  both(*store);
  loop.until([&] { return tasks.taking; });
  // It pings, since it hears nothing.
  loop.until([&] { return tasks.begun >= 3 && tasks.taking; });
  EXPECT_EQ(tasks.losses, 0);

  test::StoreOps ops(loop, *store);
  ops.urgency = Urgency::kDemand;
  tasks.ask(1, 0, 4096);
  EXPECT_EQ(ops.read(0, content.size()), content);
  // One of its own may be followed by others.
  loop.until([&] { return tasks.may; });
  for (std::uint64_t i = 2; !tasks.taking && i < 100; ++i) {
    tasks.ask(i, 0, 4096);
    loop.until([&] { return tasks.cookies.empty(); });
    loop.run_for(1ms);
  }
  EXPECT_GT(tasks.errors.size(), 4u);
  loop.until([&] { return tasks.taking; });

  // A connection that ends is noticed, though nobody reads.
  proxy->cut(2);
  loop.until([&] { return tasks.losses == 1; });
  EXPECT_EQ(heard.downs, 0);
  store->close();
}

TEST_F(RemoteStoreLanesTest, ALostPageLaneIsLostToTheAsker) {
  const auto store = writer("file");
  Tasks tasks;
  store->set_asker(&tasks, 4096);
  both(*store);
  loop.until([&] { return tasks.may; });
  const std::uint32_t first = tasks.lane.number;
  proxy->stuck = 2;
  tasks.ask(1, 0, 4096);
  loop.run_for(1ms);
  proxy->cut(2);
  loop.until([&] { return tasks.losses == 1; });
  EXPECT_TRUE(tasks.errors.empty());
  proxy->stuck = 0;
  loop.until([&] { return tasks.may; });
  EXPECT_NE(tasks.lane.number, first);
  tasks.ask(2, 0, 4096);
  loop.until([&] { return tasks.errors.size() == 1; });
  // As is an answer of another range than was asked for.
  tasks.fits = false;
  tasks.ask(3, 0, 4096);
  loop.until([&] { return tasks.losses == 2; });
  EXPECT_EQ(heard.downs, 0);
  tasks.fits = true;
  loop.until([&] { return tasks.may; });
  proxy->cut(1);
  loop.until([&] { return heard.downs == 1; });
  EXPECT_EQ(tasks.losses, 3);
  store->close();
}

TEST_F(RemoteStoreLanesTest, AFencedWritersTasksTellIt) {
  const auto old = writer("file");
  Tasks tasks;
  old->set_asker(&tasks, 4096);
  loop.until([&] { return tasks.may; });
  const auto young = make("file");
  ASSERT_TRUE(open(*young).ok());
  ASSERT_TRUE(claim(*young, {.writer = other, .take_over = true}).ok());
  tasks.ask(1, 0, 4096);
  loop.until([&] { return heard.fails == 1; });
  EXPECT_EQ(tasks.errors, std::vector<int>{ESTALE});
  EXPECT_EQ(tasks.losses, 1);
  EXPECT_EQ(heard.failed.code(), Code::kBusy);
}

TEST_F(RemoteStoreLanesTest, ReleaseEndsBoth) {
  const auto store = writer("file");
  both(*store);
  EXPECT_TRUE(release(*store).ok());
  EXPECT_EQ(store->lanes(), 0u);
  loop.until([&] { return server->sessions() == 0; });
}

// --- resume ------------------------------------------------------------------------

TEST_F(RemoteStoreTest, ResumesWhenTheServerComes) {
  Geometry known;
  std::uint64_t generation;
  {
    const auto before = writer("file");
    known = before->geometry();
    generation = before->claim_generation();
    before->close();
  }
  server.reset();
  const auto store = make("file", {.expected = known});
  store->resume(WriterClaim{.writer = me, .generation = generation});
  EXPECT_EQ(store->geometry().size, known.size);
  loop.until([&] { return heard.downs > 0; });
  EXPECT_EQ(heard.ups, 0);
  start_server();
  loop.until([&] { return heard.ups == 1; });
  test::StoreOps ops(loop, *store);
  EXPECT_EQ(ops.write(0, pattern(10, 1)).err, 0);
}

TEST_F(RemoteStoreTest, ResumeToAnotherStoreFails) {
  const auto probe = make("file");
  ASSERT_TRUE(open(*probe).ok());
  Geometry known = probe->geometry();
  known.identity[3] ^= 1;
  const auto store = make("file", {.expected = known});
  store->resume(std::nullopt);
  loop.until([&] { return heard.fails == 1; });
  EXPECT_EQ(heard.failed.code(), Code::kCorrupt);
}

TEST_F(RemoteStoreTest, ResumeOfAClaimThatSomebodyElseHasFails) {
  const auto holder = writer("file");
  const auto store = make("file", {.expected = holder->geometry()});
  store->resume(WriterClaim{.writer = other});
  loop.until([&] { return heard.fails == 1; });
  EXPECT_EQ(heard.failed.code(), Code::kBusy);
  EXPECT_EQ(heard.failed.err(), ESTALE);
}

// Regions whose server is gone come back together. One that is silent is not knocked at by all
// of them at once; one that is there has all of them soon.
TEST_F(RemoteStoreTest, ManyStoresComeBackByTurns) {
  const auto probe = make("mem");
  ASSERT_TRUE(open(*probe).ok());
  const Geometry known = probe->geometry();
  probe->close();
  constexpr int kStores = 3 * ConnectionBudget::kTurns;
  const auto budget = std::make_shared<ConnectionBudget>(loop.reactor());
  std::vector<std::unique_ptr<RemoteStore>> stores;
  proxy->black_hole = true;
  const int before = proxy->connections;
  for (int i = 0; i < kStores; ++i) {
    stores.push_back(make("mem", {.read_only = true, .expected = known, .budget = budget}));
    stores.back()->resume(std::nullopt);
  }
  loop.until([&] { return proxy->connections - before >= int{ConnectionBudget::kTurns}; });
  loop.run_for(100ms);
  EXPECT_EQ(proxy->connections - before, int{ConnectionBudget::kTurns});
  EXPECT_EQ(heard.ups, 0);

  // Whoever asks for an answer gets one.
  std::optional<Status> status;
  const auto attached = make("mem", {.read_only = true, .budget = budget, .open_timeout = 200ms});
  attached->open([&](const Result<Geometry>& geometry) { status = geometry.status(); });
  loop.until([&] { return status.has_value(); });
  EXPECT_EQ(status->code(), Code::kUnreachable);

  proxy->black_hole = false;
  proxy->cut();
  loop.until([&] { return heard.ups == kStores; });
  stores.clear();
}

// --- a flush behind the writes -----------------------------------------------------

class RemoteStoreFlushBehindTest : public RemoteStoreTest {
 protected:
  void SetUp() override {
    RemoteStoreTest::SetUp();
    server_options.exports.push_back(
        *server::ExportSpec::parse("bad=error+mem://1MiB?error.write=1/2"));
    start_server();
  }
  // Issues writes of so many bytes and a flush behind them.
  void issue(RemoteStore& store, std::size_t writes, std::size_t length) {
    bytes = pattern(length, 1);
    all.clear();
    for (std::size_t i = 0; i < writes; ++i) {
      all.emplace_back();
      store.write(i * length, bytes, all.back().done());
    }
    all.emplace_back();
    store.flush_behind(all.back().done());
  }
  bool over() const {
    return std::ranges::all_of(all, [](const Pending& one) { return one.over; });
  }

  std::vector<std::byte> bytes;
  std::deque<Pending> all;
};

TEST_F(RemoteStoreFlushBehindTest, TravelsWithTheWrites) {
  const auto store = writer("file", {.keep_alive = 60s});
  ASSERT_TRUE(store->can_flush_behind());
  std::vector<wire::Type> seen;
  std::size_t answered_before = 0, answers = 0;
  proxy->to_server = [&](const std::vector<std::byte>& piece) {
    for (std::size_t at = 0; at + wire::kHeaderBytes <= piece.size();) {
      const auto type = static_cast<wire::Type>(piece[at + 5]);
      seen.push_back(type);
      if (type == wire::Type::kFlush) {
        answered_before = answers;
        EXPECT_EQ(load_le<std::uint16_t>(&piece[at + 6]), wire::flag::kBehind);
      }
      at += wire::kHeaderBytes + load_le<std::uint32_t>(&piece[at + 40]);
    }
  };
  proxy->to_client = [&](const std::vector<std::byte>&) { ++answers; };
  issue(*store, 3, 1000);
  loop.until([&] { return over(); });
  EXPECT_EQ(seen, (std::vector{wire::Type::kWrite, wire::Type::kWrite, wire::Type::kWrite,
                               wire::Type::kFlush}));
  EXPECT_EQ(answered_before, 0u);
  for (const Pending& one : all) {
    EXPECT_EQ(one.outcome.err, 0);
    EXPECT_EQ(one.outcome.epoch, store->geometry().epoch);
  }
}

// More of them than calls: none may be sent behind the flush that is to cover it.
TEST_F(RemoteStoreFlushBehindTest, IsTheLastToBeAnswered) {
  const auto store = writer("mem");
  issue(*store, 7, 2 << 20);
  loop.until([&] { return all.back().over; });
  EXPECT_TRUE(over());
  for (const Pending& one : all) EXPECT_EQ(one.outcome.err, 0);
}

TEST_F(RemoteStoreFlushBehindTest, AFailedWriteDoesNotFailIt) {
  const auto store = writer("bad");
  issue(*store, 2, 1000);
  loop.until([&] { return over(); });
  EXPECT_EQ(all[0].outcome.err, 0);
  EXPECT_EQ(all[1].outcome.err, EIO);
  EXPECT_EQ(all[2].outcome.err, 0);
  EXPECT_EQ(all[2].outcome.epoch, all[0].outcome.epoch);
}

TEST_F(RemoteStoreFlushBehindTest, ServerThatDoesNotKnowIt) {
  proxy->to_client = [&](std::vector<std::byte>& hello) {
    hello.at(wire::kHeaderBytes + 8) &= ~std::byte{wire::feature::kFlushBehind};
    proxy->to_client = nullptr;
  };
  const auto store = writer("file");
  EXPECT_FALSE(store->can_flush_behind());
  test::StoreOps ops(loop, *store);
  EXPECT_EQ(ops.write(0, pattern(10, 1)).err, 0);
  EXPECT_EQ(ops.flush().err, 0);
}

TEST_F(RemoteStoreFlushBehindTest, LostOnTheWayWithItsWrites) {
  const auto store = writer("file");
  proxy->to_server = [&](std::vector<std::byte>& piece) {
    // The flush itself arrives no more.
    if (piece.size() >= wire::kHeaderBytes) piece.resize(piece.size() - wire::kHeaderBytes);
    proxy->to_server = [](std::vector<std::byte>& rest) { rest.clear(); };
  };
  issue(*store, 2, 1000);
  loop.until([&] { return all[1].over; });
  EXPECT_FALSE(all[2].over);
  proxy->to_server = nullptr;
  server.reset();
  loop.until([&] { return over(); });
  EXPECT_EQ(all[2].outcome.err, EAGAIN);
  EXPECT_FALSE(store->can_flush_behind());
  start_server();
  loop.until([&] { return heard.ups == 1; });
  // The writes were answered under another epoch than this one's.
  const std::uint64_t before = all[0].outcome.epoch;
  issue(*store, 2, 1000);
  loop.until([&] { return over(); });
  EXPECT_EQ(all[2].outcome.err, 0);
  EXPECT_EQ(all[0].outcome.epoch, all[2].outcome.epoch);
  EXPECT_NE(before, 0u);
}

// --- the data path -----------------------------------------------------------------

TEST_F(RemoteStoreTest, ReadsOvertakeWritesThatHaveNotBeenSent) {
  // Nothing of the other lane may get in between: all of it has been said, and no ping will be.
  const auto store = writer("mem", {.keep_alive = 60s});
  std::vector<wire::Type> seen;
  // The stream starts at a frame, and WRITE payloads are skipped by length.
  std::vector<std::byte> stream;
  proxy->to_server = [&](std::vector<std::byte>& piece) {
    stream.insert(stream.end(), piece.begin(), piece.end());
  };
  const auto bytes = pattern(8 << 20, 1);
  Pending write, read;
  std::vector<std::byte> into(4096);
  store->write(0, bytes, write.done());
  store->read(12 << 20, std::span(into), read.done());
  loop.until([&] { return write.over && read.over; });
  for (std::size_t at = 0; at + wire::kHeaderBytes <= stream.size();) {
    wire::Header header;
    ASSERT_EQ(wire::decode(std::span(stream).subspan(at).first<wire::kHeaderBytes>(), 1, header),
              wire::Flaw::kNone);
    seen.push_back(header.type);
    EXPECT_LE(header.payload, wire::kSlice);
    at += wire::kHeaderBytes + header.payload;
  }
  ASSERT_GE(seen.size(), 33u);
  EXPECT_EQ(seen[0], wire::Type::kRead);
}

TEST_F(RemoteStoreTest, ReadOvertakesWritesIssuedTurnsBefore) {
  const auto store = writer("mem");
  const auto bytes = pattern(15 << 20, 1);
  Pending write, read;
  std::vector<std::byte> into(4096);
  store->write(0, bytes, write.done());
  loop.run_for(1ms);
  store->read(0, std::span(into), read.done());
  bool write_was_over = true;
  loop.until([&] {
    if (read.over && write_was_over) write_was_over = write.over;
    return read.over && write.over;
  });
  EXPECT_EQ(read.outcome.err, 0);
}

#ifndef RMEM_SANITIZED
TEST_F(RemoteStoreTest, DataPathDoesNotAllocate) {
  // Straight to the server, whose steady state does not allocate either.
  auto store =
      std::move(RemoteStore::create(loop.reactor(),
                                    {.socket_path = dir / "back", .export_name = "mem"}, {}, heard))
          .value();
  ASSERT_TRUE(open(*store).ok());
  ASSERT_TRUE(claim(*store, {.writer = me}).ok());
  loop.until([&] { return store->lanes() == 2; });
  struct Load {
    RemoteStore* store;
    std::vector<std::byte> bytes = std::vector<std::byte>(64 << 10);
    int left = 0;
    static void next(void* ctx, const Outcome& outcome) {
      auto& self = *static_cast<Load*>(ctx);
      EXPECT_EQ(outcome.err, 0);
      if (--self.left < 0) return;
      const Done done{next, ctx};
      if (self.left % 2)
        self.store->read(0, std::span(self.bytes), done,
                         self.left % 4 == 1 ? Urgency::kDemand : Urgency::kBulk);
      else
        self.store->write(0, self.bytes, done);
    }
  } load{store.get()};
  const auto run = [&] {
    load.left = 500;
    for (int i = 0; i < 8; ++i) Load::next(&load, {});
    loop.until([&] { return load.left <= -8; });
  };
  run();
  const std::size_t before = test::allocations();
  run();
  EXPECT_LT(test::allocations() - before, 10u);  // those of until() itself
}
#endif

}  // namespace
}  // namespace rmem::store
