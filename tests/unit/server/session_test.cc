// SPDX-License-Identifier: MIT
// The server over a real socket, asked by good and bad clients.
#include "server/session.hh"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <fstream>

#include "server/server.hh"
#include "support/loop.hh"
#include "support/store_ops.hh"
#include "support/temp_dir.hh"
#include "support/wire_client.hh"
#include "transport/pair.hh"
#include "wire/compression.hh"

namespace rmem::server {
namespace {

using namespace std::chrono_literals;
using test::pattern;
using test::WireClient;
using wire::Type;

class SessionTest : public testing::Test {
 protected:
  void SetUp() override {
    options.state_dir = dir / "state";
    options.session.linger = 30ms;
    options.exports = {
        *ExportSpec::parse("mem=mem://1MiB"),
        *ExportSpec::parse("file=file://" + (dir / "file") + "?size=1MiB"),
        *ExportSpec::parse("alias=file://" + (dir / "file")),
        *ExportSpec::parse("fixed=file://" + (dir / "file") + ",ro"),
    };
    start();
  }

  void start() {
    server.reset();
    auto made = Server::create(loop.reactor(), options);
    ASSERT_TRUE(made.ok()) << made.status().cause();
    server = std::move(made).value();
    transport::Address at;
    at.path = dir / "socket";
    const Status listening = server->listen(at);
    ASSERT_TRUE(listening.ok()) << listening.cause();
  }

  std::unique_ptr<WireClient> connect() {
    return std::make_unique<WireClient>(loop, dir / "socket");
  }
  std::unique_ptr<WireClient> opened(const std::string& name, std::uint16_t flags = 0) {
    auto client = connect();
    EXPECT_EQ(client->hello().header.error, 0u);
    EXPECT_EQ(client->open(name, flags).header.error, 0u);
    return client;
  }
  std::unique_ptr<WireClient> writer(const std::string& name, const Uuid& id,
                                     std::uint64_t session = 1) {
    auto client = opened(name);
    EXPECT_EQ(client->claim(id, session).header.error, 0u);
    return client;
  }
  // Another lane for the claim of that session.
  std::unique_ptr<WireClient> pages(const std::string& name, const Uuid& id,
                                    std::uint64_t session = 1,
                                    wire::Role role = wire::Role::kPages) {
    auto client = connect();
    client->role = role;
    EXPECT_EQ(client->hello().header.error, 0u);
    EXPECT_EQ(client->open(name).header.error, 0u);
    EXPECT_EQ(client->claim(id, session).header.error, 0u);
    return client;
  }
  // Waits for the REFUSE and the end of the connection.
  void expect_refused(WireClient& client, std::uint32_t error, const std::string& words) {
    const auto frame = client.reply(0);
    EXPECT_EQ(frame.header.type, Type::kRefuse);
    EXPECT_EQ(frame.header.error, error) << frame.text();
    EXPECT_NE(frame.text().find(words), std::string::npos) << frame.text();
    loop.until([&] { return client.closed; });
  }

  test::TempDir dir;
  test::Loop loop;
  ServerOptions options;
  std::unique_ptr<Server> server;
  const Uuid me = uuid_random();
  const Uuid other = uuid_random();
};

// --- before anything is opened -------------------------------------------------

TEST_F(SessionTest, GarbageBeforeHelloIsRefused) {
  const auto client = connect();
  client->send_raw("GET / HTTP/1.1\r\n\r\n");
  expect_refused(*client, wire::error::kProtocol, "not a frame");
}

TEST_F(SessionTest, OtherVersionsAreRefusedNamingBothRanges) {
  wire::Hello hello;
  hello.version_min = 7;
  hello.version_max = 9;
  const auto client = connect();
  client->send(Type::kHello, wire::encode(hello));
  expect_refused(*client, wire::error::kVersion,
                 "server speaks version 1, the peer versions 7 to 9");
}

TEST_F(SessionTest, FrameOfAnotherVersionIsRefusedNamingBoth) {
  const auto client = connect();
  wire::Header header;
  header.type = Type::kHello;
  wire::HeaderBytes bytes;
  wire::encode(header, bytes);
  bytes[4] = std::byte{3};
  client->send_raw(bytes);
  expect_refused(*client, wire::error::kVersion, "server speaks version 1, the peer version 3");
}

TEST_F(SessionTest, NewerClientThatKnowsOurVersionIsServed) {
  wire::Hello hello;
  hello.version_min = 1;
  hello.version_max = 5;
  const auto client = connect();
  const auto reply = client->hello(hello);
  EXPECT_EQ(wire::decode_hello(reply.payload)->version, 1);
}

TEST_F(SessionTest, HelloHasToComeFirst) {
  const auto client = connect();
  client->send(Type::kPing);
  expect_refused(*client, wire::error::kProtocol, "HELLO");
}

TEST_F(SessionTest, SecondHelloIsRefused) {
  const auto client = connect();
  client->hello();
  client->send(Type::kHello, wire::encode(wire::Hello{}));
  expect_refused(*client, wire::error::kProtocol, "second HELLO");
}

TEST_F(SessionTest, MalformedHelloIsRefused) {
  const auto client = connect();
  client->send(Type::kHello, std::vector<std::byte>(47));
  expect_refused(*client, wire::error::kProtocol, "malformed HELLO");
}

TEST_F(SessionTest, FrameOfAnotherGenerationIsRefused) {
  const auto client = connect();
  client->hello();
  client->generation = 2;
  client->send(Type::kPing);
  expect_refused(*client, wire::error::kProtocol, "another connection");
}

TEST_F(SessionTest, ReplyFromAClientIsRefused) {
  const auto client = opened("mem");
  wire::Header header;
  header.type = Type::kPing;
  header.flags = wire::flag::kReply;
  client->send(header);
  expect_refused(*client, wire::error::kProtocol, "reply from a client");
}

TEST_F(SessionTest, SilenceBeforeOpenEndsAtTheDeadline) {
  options.session.handshake_timeout = 50ms;
  start();
  const auto client = connect();
  expect_refused(*client, wire::error::kTimedOut, "no OPEN");
}

TEST_F(SessionTest, SlowLorisEndsAtTheDeadline) {
  options.session.handshake_timeout = 100ms;
  start();
  const auto client = connect();
  const auto hello = wire::encode(wire::Hello{});
  wire::Header header;
  header.type = Type::kHello;
  header.payload = static_cast<std::uint32_t>(hello.size());
  header.generation = 1;
  wire::HeaderBytes bytes;
  wire::encode(header, bytes);
  // A byte every few ms keeps the connection busy, but buys no time.
  std::size_t sent = 0;
  std::unique_ptr<Reactor::Timer> drip;
  drip = std::make_unique<Reactor::Timer>(loop.reactor(), [&] {
    if (sent < bytes.size()) client->send_raw(std::span(bytes).subspan(sent++, 1));
    drip->arm(5ms);
  });
  drip->arm(5ms);
  expect_refused(*client, wire::error::kTimedOut, "no OPEN");
}

TEST_F(SessionTest, HelloAloneDoesNotStopTheDeadline) {
  options.session.handshake_timeout = 50ms;
  start();
  const auto client = connect();
  client->hello();
  expect_refused(*client, wire::error::kTimedOut, "no OPEN");
}

TEST_F(SessionTest, LargePayloadBeforeOpenIsRefused) {
  const auto client = connect();
  client->hello();
  client->send(Type::kOpen, std::vector<std::byte>(wire::kMaxPayloadBeforeOpen + 1));
  expect_refused(*client, wire::error::kMessageSize, "4096 are allowed");
}

TEST_F(SessionTest, ManyRequestsBeforeOpenAreAnsweredOneByOne) {
  const auto client = connect();
  client->hello();
  std::uint64_t last = 0;
  for (int i = 0; i < 500; ++i) last = client->send(Type::kPing);
  EXPECT_EQ(client->reply(last).header.error, 0u);
  EXPECT_EQ(client->frames.size(), 499u);
}

TEST_F(SessionTest, TooManyConnectionsAreRefused) {
  options.limits.connections = 2;
  start();
  const auto one = connect(), two = connect(), three = connect();
  expect_refused(*three, wire::error::kBusy, "too many connections");
  EXPECT_EQ(one->hello().header.error, 0u);
}

TEST_F(SessionTest, SilentClientIsDroppedAndOneThatPingsIsNot) {
  options.session.silence = 150ms;
  start();
  const auto silent = opened("mem");
  const auto lively = opened("mem");
  std::unique_ptr<Reactor::Timer> ping;
  ping = std::make_unique<Reactor::Timer>(loop.reactor(), [&] {
    lively->send(Type::kPing);
    ping->arm(20ms);
  });
  ping->arm(20ms);
  loop.until([&] { return silent->closed; });
  EXPECT_FALSE(lively->closed);
}

// --- OPEN ------------------------------------------------------------------------

TEST_F(SessionTest, OpenAnswersTheGeometry) {
  const auto client = connect();
  client->hello();
  const auto reply = client->open("file");
  ASSERT_EQ(reply.header.error, 0u);
  EXPECT_NE(reply.header.handle, 0u);
  EXPECT_NE(reply.header.epoch, 0u);
  const auto opened = wire::decode_opened(reply.payload);
  ASSERT_TRUE(opened);
  EXPECT_EQ(opened->size, 1u << 20);
  EXPECT_NE(opened->identity, Uuid{});
}

TEST_F(SessionTest, UnknownExportIsNamed) {
  const auto client = connect();
  client->hello();
  const auto reply = client->open("nothing");
  EXPECT_EQ(reply.header.error, wire::error::kNoEntry);
  EXPECT_NE(reply.text().find("nothing"), std::string::npos);
  EXPECT_EQ(client->open("mem").header.error, 0u);
}

TEST_F(SessionTest, OverlongExportNameIsUnknown) {
  const auto client = connect();
  client->hello();
  EXPECT_EQ(client->open(std::string(4000, 'x')).header.error, wire::error::kNoEntry);
}

TEST_F(SessionTest, ReadOnlyExportHasToBeOpenedSo) {
  const auto client = connect();
  client->hello();
  EXPECT_EQ(client->open("fixed").header.error, wire::error::kReadOnly);
  const auto reply = client->open("fixed", wire::flag::kReadOnly);
  EXPECT_EQ(reply.header.error, 0u);
  EXPECT_TRUE(reply.header.flags & wire::flag::kReadOnly);
  EXPECT_EQ(client->claim(me).header.error, wire::error::kReadOnly);
  EXPECT_EQ(client->write(0, pattern(1, 1)).header.error, wire::error::kReadOnly);
}

TEST_F(SessionTest, HandlesAreLimited) {
  const auto client = opened("mem");
  for (std::uint32_t i = 1; i < wire::kMaxHandles; ++i)
    EXPECT_EQ(client->open("mem").header.error, 0u);
  EXPECT_EQ(client->open("mem").header.error, wire::error::kTooManyHandles);
}

TEST_F(SessionTest, UnknownAndClosedHandlesAreStale) {
  const auto client = opened("mem");
  EXPECT_EQ(client->simple(Type::kClose).header.error, 0u);
  EXPECT_EQ(client->read(0, 1).header.error, wire::error::kStale);
  client->handle = 77;
  EXPECT_EQ(client->read(0, 1).header.error, wire::error::kStale);
}

// --- operations ------------------------------------------------------------------

TEST_F(SessionTest, UnknownOperationsAreRefusedByName) {
  const auto client = opened("mem");
  const auto hash = client->call(Type::kHash);
  EXPECT_EQ(hash.header.error, wire::error::kNotOffered);
  EXPECT_NE(hash.text().find("HASH"), std::string::npos);
  const auto unknown = client->call(static_cast<Type>(77), pattern(1000, 1));
  EXPECT_EQ(unknown.header.error, wire::error::kNotOffered);
  EXPECT_NE(unknown.text().find("77"), std::string::npos);
  EXPECT_EQ(client->call(Type::kPing).header.error, 0u);
}

TEST_F(SessionTest, OversizedPayloadIsRefused) {
  const auto client = opened("mem");
  wire::Header header;
  header.type = Type::kWrite;
  header.generation = 1;
  header.payload = wire::kMaxPayload + 1;
  wire::HeaderBytes bytes;
  wire::encode(header, bytes);
  client->send_raw(bytes);
  expect_refused(*client, wire::error::kMessageSize, "payload");
}

TEST_F(SessionTest, LengthsOutOfTheLimitsAreInvalid) {
  const auto client = writer("mem", me);
  EXPECT_EQ(client->read(0, 0).header.error, wire::error::kInvalid);
  EXPECT_EQ(client->read(0, wire::kMaxPayload + 1).header.error, wire::error::kInvalid);
  EXPECT_EQ(client->read(1 << 20, 1).header.error, wire::error::kInvalid);
  EXPECT_EQ(client->read(~0ull, 2).header.error, wire::error::kInvalid);
  EXPECT_EQ(client->write((1 << 20) - 1, pattern(2, 1)).header.error, wire::error::kInvalid);
  wire::Header header;
  header.type = Type::kWrite;
  header.handle = client->handle;
  header.length = 5;
  EXPECT_EQ(client->call(header, pattern(4, 1)).header.error, wire::error::kInvalid);
}

TEST_F(SessionTest, DamagedWriteIsAnsweredAndEndsTheConnection) {
  wire::Hello hello;
  hello.features = wire::feature::kChecksum;
  const auto client = connect();
  client->hello(hello);
  client->open("mem");
  client->claim(me);
  const auto bytes = pattern(100, 1);
  wire::Header header;
  header.type = Type::kWrite;
  header.handle = client->handle;
  header.length = bytes.size();
  header.flags = wire::flag::kChecksum;
  header.checksum = crc32c(bytes) ^ 1;
  EXPECT_EQ(client->call(header, bytes).header.error, wire::error::kBadMessage);
  expect_refused(*client, wire::error::kBadMessage, "checksum");
  const auto again = opened("mem");
  EXPECT_EQ(again->read(0, 100).payload, std::vector<std::byte>(100));
}

TEST_F(SessionTest, AgreedChecksumsAreOnEveryReadAndDemandedOfEveryWrite) {
  wire::Hello hello;
  hello.features = wire::feature::kChecksum | 1ull << 40;
  const auto client = connect();
  EXPECT_EQ(wire::decode_hello(client->hello(hello).payload)->features, wire::feature::kChecksum);
  client->open("mem");
  client->claim(me);
  const auto reply = client->read(0, 100);
  EXPECT_TRUE(reply.header.flags & wire::flag::kChecksum);
  EXPECT_EQ(reply.header.checksum, crc32c(reply.payload));
  client->send_write(0, pattern(10, 1));
  expect_refused(*client, wire::error::kProtocol, "checksum");
}

// --- compression ---------------------------------------------------------------

TEST_F(SessionTest, CompressedWritesAreWhatTheyWere) {
  for (const wire::Codec codec : {wire::Codec::kLz4, wire::Codec::kZstd}) {
    wire::Hello hello;
    hello.features = wire::codec_feature(codec);
    const auto client = connect();
    EXPECT_EQ(wire::decode_hello(client->hello(hello).payload)->features, hello.features);
    client->open("mem");
    client->claim(me);
    const std::vector<std::byte> bytes(100'000, std::byte{'c'});
    std::vector<std::byte> small(bytes.size());
    small.resize(wire::compress(codec, bytes, small));
    wire::Header header;
    header.type = Type::kWrite;
    header.flags = wire::codec_flag(codec);
    header.handle = client->handle;
    header.offset = 17;
    header.length = bytes.size();
    EXPECT_EQ(client->call(header, small).header.error, 0u);
    EXPECT_EQ(client->read(17, 100'000).payload, bytes);
    // A length that it does not make, whatever is there instead, and nothing of it is written.
    header.length = bytes.size() + 1;
    header.offset = 200'000;
    client->send(header, small);
    expect_refused(*client, wire::error::kProtocol, "not what its flags say");
    EXPECT_EQ(opened("mem")->read(200'000, 10).payload, std::vector<std::byte>(10));
  }
}

TEST_F(SessionTest, CompressionThatWasNotAgreedIsRefused) {
  options.session.compress = false;
  start();
  wire::Hello hello;
  hello.features = wire::feature::kCompression;
  const auto client = connect();
  EXPECT_EQ(wire::decode_hello(client->hello(hello).payload)->features, 0u);
  client->open("mem");
  client->claim(me);
  wire::Header header;
  header.type = Type::kWrite;
  header.flags = wire::flag::kLz4;
  header.handle = client->handle;
  header.length = 1000;
  client->send(header, pattern(10, 1));
  expect_refused(*client, wire::error::kProtocol, "not what its flags say");
}

TEST_F(SessionTest, DiskFullIsToldAndTheNextWriteMayWorkAgain) {
  const auto client = writer("file", me);
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before = {};
  ::getrlimit(RLIMIT_FSIZE, &before);
  rlimit small = before;
  small.rlim_cur = 64 << 10;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto within = client->write(0, pattern(4096, 1));
  const auto beyond = client->write(128 << 10, pattern(4096, 2));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(within.header.error, 0u);
  EXPECT_EQ(beyond.header.error, wire::error::kNoSpace);
  EXPECT_EQ(client->write(128 << 10, pattern(4096, 2)).header.error, 0u);
  EXPECT_EQ(client->simple(Type::kFlush).header.error, 0u);
}

TEST_F(SessionTest, ClientThatDoesNotReadIsHeldBackAndOthersAreServed) {
  const auto greedy = opened("mem");
  // Far more answers than any buffer holds; it reads none of them until later.
  std::uint64_t last = 0;
  for (int i = 0; i < 200; ++i) {
    wire::Header header;
    header.type = Type::kRead;
    header.handle = greedy->handle;
    header.length = 1 << 20;
    last = greedy->send(header);
  }
  const auto other_client = opened("mem");
  EXPECT_EQ(other_client->read(0, 10).header.error, 0u);
  EXPECT_EQ(greedy->reply(last).payload.size(), 1u << 20);
}

// Each may have one request under way, whatever the others have.
TEST_F(SessionTest, AllConnectionsTogetherHaveABoundToo) {
  constexpr std::size_t kClients = 8;
  constexpr std::uint64_t kEach = 1 << 20;
  options.memory = 2 * kEach;
  start();
  std::vector<std::unique_ptr<WireClient>> clients;
  std::vector<std::uint64_t> last(kClients);
  for (std::size_t i = 0; i < kClients; ++i) clients.push_back(opened("mem"));
  for (int round = 0; round < 20; ++round) {
    for (std::size_t i = 0; i < kClients; ++i) {
      wire::Header header;
      header.type = Type::kRead;
      header.handle = clients[i]->handle;
      header.length = kEach;
      last[i] = clients[i]->send(header);
    }
  }
  std::uint64_t most = 0;
  const auto answered = [&](const WireClient& client) { return client.frames.size() == 20; };
  loop.until([&] {
    most = std::max(most, server->memory_in_use());
    return std::ranges::all_of(clients, [&](const auto& one) { return answered(*one); });
  });
  // What is read of a request is a buffer of its own.
  EXPECT_LE(most, options.memory + kClients * (kEach + 4096));
  EXPECT_GE(most, options.memory);
  // One that goes away in the middle of a request gives back what it had.
  const auto half = writer("mem", me);
  wire::Header header;
  header.type = Type::kWrite;
  header.handle = half->handle;
  header.generation = half->generation;
  header.length = header.payload = kEach;
  wire::HeaderBytes bytes;
  wire::encode(header, bytes);
  half->send_raw(bytes);
  loop.until([&] { return server->memory_in_use() >= kEach; });
  half->disconnect();
  loop.until([&] { return server->memory_in_use() == 0; });
}

// --- claims ----------------------------------------------------------------------

TEST_F(SessionTest, WritingNeedsTheClaim) {
  const auto client = opened("mem");
  EXPECT_EQ(client->write(0, pattern(1, 1)).header.error, wire::error::kPerm);
  EXPECT_EQ(client->simple(Type::kFlush).header.error, wire::error::kPerm);
  EXPECT_EQ(client->simple(Type::kRelease).header.error, wire::error::kPerm);
  EXPECT_EQ(client->read(0, 1).header.error, 0u);
}

TEST_F(SessionTest, ClaimNeedsAWriterOfSixteenBytes) {
  const auto client = opened("mem");
  wire::Header header;
  header.type = Type::kClaim;
  header.handle = client->handle;
  EXPECT_EQ(client->call(header, std::vector<std::byte>(15)).header.error, wire::error::kInvalid);
}

TEST_F(SessionTest, SecondWriterIsRefusedUntilTheFirstReleases) {
  const auto first = writer("mem", me);
  const auto second = opened("mem");
  EXPECT_EQ(second->claim(other).header.error, wire::error::kBusy);
  EXPECT_EQ(first->simple(Type::kRelease).header.error, 0u);
  const auto granted = second->claim(other);
  EXPECT_EQ(granted.header.error, 0u);
  EXPECT_EQ(granted.header.length, 2u);
  EXPECT_EQ(first->write(0, pattern(1, 1)).header.error, wire::error::kPerm);
}

TEST_F(SessionTest, ClaimBelongsToTheStoreNotToTheExport) {
  const auto first = writer("file", me);
  const auto second = opened("alias");
  EXPECT_EQ(second->claim(other).header.error, wire::error::kBusy);
}

TEST_F(SessionTest, ClaimOutlivesItsConnection) {
  writer("mem", me)->disconnect();
  const auto second = opened("mem");
  EXPECT_EQ(second->claim(other).header.error, wire::error::kBusy);
  EXPECT_EQ(second->claim(me, 2).header.error, 0u);
}

TEST_F(SessionTest, ReadersAreNotLimited) {
  const auto first = writer("mem", me);
  const auto bytes = pattern(1000, 1);
  EXPECT_EQ(first->write(0, bytes).header.error, 0u);
  for (int i = 0; i < 5; ++i)
    EXPECT_EQ(opened("mem", wire::flag::kReadOnly)->read(0, 1000).payload, bytes);
}

TEST_F(SessionTest, NewSessionOfAWriterEndsItsOldOne) {
  const auto old = writer("mem", me, 1);
  const auto young = writer("mem", me, 2);
  loop.until([&] { return old->closed; });
  EXPECT_EQ(young->write(0, pattern(1, 1)).header.error, 0u);
}

TEST_F(SessionTest, LateWriteOfAnOldSessionIsNotApplied) {
  const auto old = writer("mem", me, 1);
  const auto late = pattern(50'000, 1);
  wire::Header header;
  header.type = Type::kWrite;
  header.handle = old->handle;
  header.generation = 1;
  header.request = 99;
  header.length = late.size();
  header.payload = static_cast<std::uint32_t>(late.size());
  wire::HeaderBytes bytes;
  wire::encode(header, bytes);
  old->send_raw(bytes);
  old->send_raw(std::span(late).first(30'000));
  // So that the server has read what there is.
  const auto probe = opened("mem");
  EXPECT_EQ(probe->read(0, 1).header.error, 0u);

  const auto young = writer("mem", me, 2);
  const auto fresh = pattern(50'000, 2);
  EXPECT_EQ(young->write(0, fresh).header.error, 0u);
  old->send_raw(std::span(late).subspan(30'000));
  loop.until([&] { return old->closed; });
  EXPECT_TRUE(young->read(0, 50'000).payload == fresh);
}

// --- a flush behind the writes ---------------------------------------------------

class SessionFlushBehindTest : public SessionTest {
 protected:
  void SetUp() override {
    SessionTest::SetUp();
    options.exports = {*ExportSpec::parse("slow=delay+mem://1MiB?delay.write=30ms"),
                       *ExportSpec::parse("bad=delay+error+mem://1MiB?delay.write=30ms&"
                                          "error.write=1/2"),
                       *ExportSpec::parse("never=delay+mem://1MiB?delay.write=1h")};
    start();
  }
  static std::uint64_t send_flush(WireClient& client, bool behind = true) {
    wire::Header header;
    header.type = Type::kFlush;
    header.flags = behind ? wire::flag::kBehind : 0;
    header.handle = client.handle;
    return client.send(header);
  }
  std::vector<std::uint64_t> answers(WireClient& client, std::size_t count) {
    loop.until([&] { return client.frames.size() >= count; });
    std::vector<std::uint64_t> requests;
    for (const auto& frame : client.frames) requests.push_back(frame.header.request);
    return requests;
  }
};

TEST_F(SessionFlushBehindTest, IsOfferedToWhoKnowsIt) {
  for (const std::uint64_t wanted : {std::uint64_t{0}, wire::feature::kFlushBehind}) {
    wire::Hello hello;
    hello.features = wanted;
    EXPECT_EQ(wire::decode_hello(connect()->hello(hello).payload)->features, wanted);
  }
}

TEST_F(SessionFlushBehindTest, WaitsForWhatIsInFrontAlone) {
  const auto client = writer("slow", me);
  const auto first = client->send_write(0, pattern(10, 1));
  const auto second = client->send_write(10, pattern(10, 2));
  const auto behind = send_flush(*client);
  const auto third = client->send_write(20, pattern(10, 3));
  const auto another = send_flush(*client);
  EXPECT_EQ(answers(*client, 5), (std::vector{first, second, behind, third, another}));
  const std::uint64_t epoch = client->frames[0].header.epoch;
  for (const auto& frame : client->frames) {
    EXPECT_EQ(frame.header.error, 0u);
    EXPECT_EQ(frame.header.epoch, epoch);
  }
}

TEST_F(SessionFlushBehindTest, OthersDoNotWait) {
  const auto client = writer("slow", me);
  const auto write = client->send_write(0, pattern(10, 1));
  const auto flush = send_flush(*client, false);
  EXPECT_EQ(answers(*client, 2), (std::vector{flush, write}));
}

TEST_F(SessionFlushBehindTest, GoesAtOnceWhereNothingIsInFront) {
  const auto client = writer("slow", me);
  EXPECT_EQ(client->reply(send_flush(*client)).header.error, 0u);
  EXPECT_EQ(client->write(0, pattern(10, 1)).header.error, 0u);
  EXPECT_EQ(client->reply(send_flush(*client)).header.error, 0u);
}

TEST_F(SessionFlushBehindTest, WritesThatFailAreAnsweredThemselves) {
  const auto client = writer("bad", me);
  const auto good = client->send_write(0, pattern(10, 1));
  const auto bad = client->send_write(10, pattern(10, 2));
  const auto outside = client->send_write(2 << 20, pattern(10, 2));
  const auto flush = send_flush(*client);
  EXPECT_EQ(answers(*client, 4), (std::vector{good, bad, outside, flush}));
  EXPECT_EQ(client->frames[0].header.error, 0u);
  EXPECT_EQ(client->frames[1].header.error, wire::error::kIo);
  EXPECT_EQ(client->frames[2].header.error, wire::error::kInvalid);
  EXPECT_EQ(client->frames[3].header.error, 0u);
}

TEST_F(SessionFlushBehindTest, NeedsTheClaimWhenItsTurnComes) {
  const auto reader = opened("slow");
  EXPECT_EQ(reader->reply(send_flush(*reader)).header.error, wire::error::kPerm);

  const auto old = writer("slow", me);
  (void)old->send_write(0, pattern(10, 1));
  const auto flush = send_flush(*old);
  EXPECT_EQ(opened("slow")->claim(other, 1, true).header.error, 0u);
  EXPECT_EQ(old->reply(flush).header.error, wire::error::kStale);

  const auto closing = writer("bad", me);
  (void)closing->send_write(0, pattern(10, 1));
  const auto late = send_flush(*closing);
  EXPECT_EQ(closing->simple(Type::kClose).header.error, 0u);
  EXPECT_EQ(closing->reply(late).header.error, wire::error::kStale);
}

TEST_F(SessionFlushBehindTest, EndsWithItsConnection) {
  const auto old = writer("never", me, 1);
  (void)old->send_write(0, pattern(10, 1));
  (void)send_flush(*old);
  (void)send_flush(*old);
  // So that the server has it all.
  EXPECT_EQ(old->call(Type::kPing).header.error, 0u);
  old->disconnect();
  const auto next = opened("slow");
  EXPECT_EQ(next->claim(me).header.error, 0u);
  EXPECT_EQ(next->reply(send_flush(*next)).header.error, 0u);
  server.reset();
}

// --- more about claims -----------------------------------------------------------

TEST_F(SessionTest, ClaimFromThePastIsStale) {
  const auto young = writer("mem", me, 10);
  const auto late = opened("mem");
  EXPECT_EQ(late->claim(me, 9).header.error, wire::error::kStale);
  EXPECT_EQ(young->write(0, pattern(1, 1)).header.error, 0u);
}

TEST_F(SessionTest, TakeOverFencesTheOldWriter) {
  const auto old = writer("file", me);
  EXPECT_EQ(old->write(0, pattern(10, 1)).header.error, 0u);
  const auto young = opened("file");
  const auto granted = young->claim(other, 1, true);
  EXPECT_EQ(granted.header.error, 0u);
  EXPECT_EQ(granted.header.length, 2u);
  const auto bytes = pattern(10, 2);
  EXPECT_EQ(young->write(0, bytes).header.error, 0u);
  EXPECT_EQ(old->write(0, pattern(10, 3)).header.error, wire::error::kStale);
  EXPECT_EQ(old->simple(Type::kFlush).header.error, wire::error::kStale);
  EXPECT_EQ(old->read(0, 10).header.error, wire::error::kStale);
  EXPECT_EQ(old->claim(me, 2).header.error, wire::error::kStale);
  const auto again = opened("file");
  EXPECT_EQ(again->claim(me, 3, true).header.error, wire::error::kStale);
  EXPECT_EQ(young->read(0, 10).payload, bytes);
}

TEST_F(SessionTest, TwoHandlesOfOneSessionMayClaimInTurn) {
  const auto client = writer("file", me);
  const std::uint32_t first = client->handle;
  client->open("alias");
  EXPECT_EQ(client->claim(me, 1).header.error, 0u);
  EXPECT_EQ(client->write(0, pattern(1, 1)).header.error, 0u);
  client->handle = first;
  EXPECT_EQ(client->write(0, pattern(1, 1)).header.error, wire::error::kStale);
}

TEST_F(SessionTest, FileClaimSurvivesARestartOfTheServer) {
  writer("file", me)->disconnect();
  start();
  const auto second = opened("file");
  EXPECT_EQ(second->claim(other).header.error, wire::error::kBusy);
  EXPECT_EQ(second->claim(me, 1, false, 1).header.error, 0u);
  EXPECT_EQ(second->simple(Type::kRelease).header.error, 0u);
  start();
  const auto third = opened("file");
  EXPECT_EQ(third->claim(other).header.error, 0u);
}

TEST_F(SessionTest, FencedWriterIsFencedAfterARestartOfTheServer) {
  const auto old = writer("file", me);
  const auto young = opened("file");
  young->claim(other, 1, true);
  young->simple(Type::kRelease);
  old->disconnect();
  young->disconnect();
  start();
  const auto again = opened("file");
  EXPECT_EQ(again->claim(me, 9).header.error, wire::error::kStale);
}

TEST_F(SessionTest, RestartKeepsTheFileIdentityAndChangesTheOthers) {
  const auto identity = [&](const std::string& name) {
    const auto client = connect();
    client->hello();
    const auto reply = client->open(name);
    return std::pair(wire::decode_opened(reply.payload)->identity, reply.header.epoch);
  };
  const auto file = identity("file"), mem = identity("mem");
  start();
  EXPECT_EQ(identity("file").first, file.first);
  EXPECT_NE(identity("mem").first, mem.first);
  EXPECT_NE(identity("mem").second, mem.second);
}

// --- lanes -----------------------------------------------------------------------

TEST_F(SessionTest, LanesAreOfferedToWhoKnowsThem) {
  for (const auto role :
       {wire::Role::kEverything, wire::Role::kPages, wire::Role::kBulk, wire::Role::kSide}) {
    const auto client = connect();
    client->role = role;
    const auto hello = wire::decode_hello(client->hello().payload);
    EXPECT_EQ(hello->features,
              role == wire::Role::kEverything ? 0 : std::uint64_t{wire::feature::kLanes});
    EXPECT_EQ(hello->role, role);
  }
}

TEST_F(SessionTest, PageConnectionJoinsTheClaimAndOnlyReads) {
  const auto bulk = writer("file", me, 5);
  ASSERT_EQ(bulk->write(0, pattern(10, 1)).header.error, 0u);
  const auto page = pages("file", me, 5);
  EXPECT_EQ(page->read(0, 10).payload, pattern(10, 1));
  EXPECT_EQ(page->write(0, pattern(10, 2)).header.error, wire::error::kPerm);
  EXPECT_EQ(page->simple(Type::kFlush).header.error, wire::error::kPerm);
  EXPECT_EQ(page->simple(Type::kRelease).header.error, wire::error::kPerm);
  // The one that has the claim still has it.
  EXPECT_EQ(bulk->write(0, pattern(10, 3)).header.error, 0u);
  EXPECT_EQ(page->read(0, 10).payload, pattern(10, 3));
}

TEST_F(SessionTest, PageConnectionJoinsNothingElse) {
  const auto page = connect();
  page->role = wire::Role::kPages;
  page->hello();
  page->open("file");
  EXPECT_EQ(page->claim(me, 5).header.error, wire::error::kPerm);
  const auto bulk = writer("file", me, 5);
  EXPECT_EQ(page->claim(me, 4).header.error, wire::error::kPerm);
  EXPECT_EQ(page->claim(me, 6).header.error, wire::error::kPerm);
  EXPECT_EQ(page->claim(other, 5).header.error, wire::error::kPerm);
  EXPECT_EQ(page->claim(other, 5, true).header.error, wire::error::kInvalid);
  EXPECT_EQ(bulk->write(0, pattern(10, 1)).header.error, 0u);
  const auto joined = page->claim(me, 5, false, 1);
  EXPECT_EQ(joined.header.error, 0u);
  EXPECT_EQ(joined.header.length, 1u);
  // While the session has no bulk lane, there is nothing to join.
  bulk->disconnect();
  loop.until([&] { return server->sessions() == 1; });
  EXPECT_EQ(page->claim(me, 5).header.error, wire::error::kPerm);
}

TEST_F(SessionTest, NewerSessionEndsThePageLanesOfTheOlder) {
  const auto bulk = writer("file", me, 5);
  const auto page = pages("file", me, 5), second = pages("file", me, 5);
  // Several handles of one connection go together.
  second->open("alias");
  EXPECT_EQ(second->claim(me, 5).header.error, 0u);
  EXPECT_EQ(bulk->claim(me, 5).header.error, 0u);
  EXPECT_EQ(page->read(0, 1).header.error, 0u);
  const auto young = writer("file", me, 6);
  loop.until([&] { return bulk->closed && page->closed && second->closed; });
  EXPECT_EQ(young->read(0, 1).header.error, 0u);
}

// Also when the old writer's bulk lane is gone already: whoever still reads by the
// page lane must not take the new writer's bytes for its own.
TEST_F(SessionTest, TakeOverFencesThePageLane) {
  for (const bool bulk_is_gone : {false, true}) {
    start();
    const Uuid old = uuid_random();
    auto bulk = connect();
    bulk->hello();
    bulk->open("mem");
    ASSERT_EQ(bulk->claim(old, 1, true).header.error, 0u);
    const auto page = pages("mem", old, 1);
    if (bulk_is_gone) {
      bulk->disconnect();
      loop.until([&] { return server->sessions() == 1; });
    }
    const auto young = opened("mem");
    ASSERT_EQ(young->claim(other, 1, true).header.error, 0u);
    EXPECT_EQ(page->read(0, 10).header.error, wire::error::kStale);
    EXPECT_EQ(page->claim(old, 1).header.error, wire::error::kStale);
    const auto again = connect();
    again->role = wire::Role::kPages;
    again->hello();
    again->open("mem");
    EXPECT_EQ(again->claim(old, 1).header.error, wire::error::kStale);
  }
}

TEST_F(SessionTest, PageLaneOfAReleasedClaimIsAReader) {
  const auto bulk = writer("file", me, 5);
  const auto page = pages("file", me, 5);
  EXPECT_EQ(bulk->simple(Type::kRelease).header.error, 0u);
  const auto next = writer("file", other, 1);
  EXPECT_EQ(page->read(0, 10).header.error, 0u);
  EXPECT_EQ(page->claim(me, 5).header.error, wire::error::kPerm);
}

TEST_F(SessionTest, SideLaneJoinsTheClaimAndWrites) {
  const auto bulk = writer("file", me, 5);
  const auto side = pages("file", me, 5, wire::Role::kSide);
  EXPECT_EQ(side->write(0, pattern(10, 1)).header.error, 0u);
  EXPECT_EQ(bulk->write(10, pattern(10, 2)).header.error, 0u);
  EXPECT_EQ(side->read(10, 10).payload, pattern(10, 2));
  EXPECT_EQ(side->claim(me, 5, true).header.error, wire::error::kInvalid);
  // The claim itself is the bulk lane's.
  EXPECT_EQ(side->simple(Type::kRelease).header.error, wire::error::kPerm);
  EXPECT_EQ(bulk->simple(Type::kRelease).header.error, 0u);
  EXPECT_EQ(side->write(0, pattern(10, 3)).header.error, wire::error::kPerm);
  const auto next = writer("file", other, 1);
  EXPECT_EQ(side->write(0, pattern(10, 3)).header.error, wire::error::kPerm);
  EXPECT_EQ(next->read(0, 10).payload, pattern(10, 1));
}

// What it still has to say would be applied on top of what the newer session writes.
TEST_F(SessionTest, NewerSessionEndsTheSideLanesOfTheOlder) {
  const auto bulk = writer("file", me, 5);
  const auto side = pages("file", me, 5, wire::Role::kSide);
  // Also where the bulk lane has ended before.
  bulk->disconnect();
  loop.until([&] { return server->sessions() == 1; });
  EXPECT_EQ(side->write(0, pattern(10, 1)).header.error, 0u);
  const auto young = writer("file", me, 6);
  loop.until([&] { return side->closed; });
  EXPECT_EQ(young->read(0, 10).payload, pattern(10, 1));
}

TEST_F(SessionTest, TakeOverFencesTheSideLane) {
  const auto bulk = writer("file", me, 5);
  const auto side = pages("file", me, 5, wire::Role::kSide);
  const auto young = opened("file");
  ASSERT_EQ(young->claim(other, 1, true).header.error, 0u);
  EXPECT_EQ(side->write(0, pattern(10, 1)).header.error, wire::error::kStale);
}

// One loop serves all: who asks for megabytes gets them in slices.
TEST_F(SessionTest, LargeAnswersLeaveTurnsToOthers) {
  struct Glutton final : transport::Connection::Handler {
    std::unique_ptr<transport::Connection> connection;
    std::vector<std::byte> space = std::vector<std::byte>(16 << 20);
    std::size_t all = 0, most = 0;
    void on_readable() override {
      const iovec buffer = {space.data(), space.size()};
      const std::size_t bytes = connection->receive({&buffer, 1}).bytes;
      all += bytes;
      most = std::max(most, bytes);
    }
    void on_writable() override {}
    void on_hangup() override {}
  } glutton;
  auto [mine, theirs] = transport::make_pair(loop.reactor(), 16 << 20);
  glutton.connection = std::move(mine);
  glutton.connection->attach(glutton);
  glutton.connection->watch(true, false);
  server->adopt(std::move(theirs));
  const auto send = [&](Type type, std::uint64_t length, std::span<const std::byte> payload) {
    wire::Header header;
    header.type = type;
    header.request = static_cast<std::uint64_t>(type);
    header.generation = 1;
    header.handle = type == Type::kRead ? 1 : 0;
    header.length = length;
    header.payload = static_cast<std::uint32_t>(payload.size());
    wire::HeaderBytes bytes;
    wire::encode(header, bytes);
    const iovec buffers[] = {{bytes.data(), bytes.size()},
                             {const_cast<std::byte*>(payload.data()), payload.size()}};
    EXPECT_EQ(glutton.connection->send(std::span(buffers).first(payload.empty() ? 1 : 2)).bytes,
              bytes.size() + payload.size());
  };
  send(Type::kHello, 0, wire::encode(wire::Hello{}));
  send(Type::kOpen, 0, std::as_bytes(std::span("mem", 3)));
  for (int i = 0; i < 8; ++i) send(Type::kRead, 1 << 20, {});
  loop.until([&] { return glutton.all >= 8 << 20; });
  // One slice when it was woken, one at the end of that turn.
  EXPECT_LE(glutton.most, 640u << 10);
}

// --- the end ---------------------------------------------------------------------

TEST_F(SessionTest, StopAnswersWhatWasReceivedAndFlushes) {
  const auto client = writer("file", me);
  std::vector<std::uint64_t> requests;
  const auto bytes = pattern(200'000, 1);
  for (int i = 0; i < 5; ++i) requests.push_back(client->send_write(0, bytes));
  EXPECT_EQ(client->reply(requests[0]).header.error, 0u);
  std::optional<Status> stopped;
  server->stop(5s, [&](const Status& status) { stopped = status; });
  loop.until([&] { return stopped && client->closed; });
  EXPECT_TRUE(stopped->ok());
  EXPECT_EQ(server->sessions(), 0u);
}

TEST_F(SessionTest, ServerMayEndInTheMiddleOfEverything) {
  std::vector<std::unique_ptr<WireClient>> clients;
  clients.push_back(writer("file", me));
  clients.push_back(opened("mem"));
  clients.push_back(connect());
  for (int i = 0; i < 20; ++i) {
    clients[0]->send_write(0, pattern(100'000, 1));
    wire::Header header;
    header.type = Type::kRead;
    header.handle = clients[1]->handle;
    header.length = 1 << 20;
    clients[1]->send(header);
  }
  clients[0]->call(Type::kPing);
  server.reset();
  loop.until([&] { return clients[0]->closed && clients[1]->closed && clients[2]->closed; });
}

TEST_F(SessionTest, PlainTcpOffLoopbackNeedsInsecure) {
  const transport::Address everywhere{.host = "0.0.0.0", .port = 0, .path = ""};
  EXPECT_EQ(server->listen(everywhere).code(), Code::kUsage);
  options.insecure = true;
  start();
  EXPECT_TRUE(server->listen(everywhere).ok());
}

}  // namespace
}  // namespace rmem::server
