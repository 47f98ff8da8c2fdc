// SPDX-License-Identifier: MIT
// Clients that mean harm, against the real server over real sockets: each is answered
// or refused, none costs more than the limits say, and somebody else is served all the
// time.
#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/socket.h>

#include <list>

#include "base/log.hh"
#include "hostile/transcript.hh"
#include "server/server.hh"
#include "support/loop.hh"
#include "support/store_ops.hh"
#include "support/temp_dir.hh"
#include "support/wire_client.hh"

namespace rmem::server {
namespace {

using namespace std::chrono_literals;
using test::Bytes;
using test::Spoiler;
using test::WireClient;
using wire::Type;

class HostileClient : public testing::Test {
 protected:
  static constexpr std::uint64_t kSeeds = 1500 / test::kSlowness;
  static constexpr std::size_t kMostSessions = 48;

  void SetUp() override {
    log::set_level(log::Level::kNone);
    options.state_dir = dir / "state";
    options.limits.connections = kMostSessions;
    options.session.linger = 20ms;
    options.session.handshake_timeout = 400ms;
    options.exports = {*ExportSpec::parse("mem=mem://16MiB"),
                       *ExportSpec::parse("file=file://" + (dir / "file") + "?size=1MiB"),
                       *ExportSpec::parse("fixed=file://" + (dir / "file") + ",ro")};
    server = std::move(Server::create(loop.reactor(), options)).value();
    transport::Address at;
    at.path = dir / "socket";
    ASSERT_TRUE(server->listen(at).ok());

    // Somebody who wants his bytes, whatever others do.
    auto writer = connect();
    writer->hello();
    writer->open("file");
    writer->claim(uuid_random());
    EXPECT_EQ(writer->write(0, treasure).header.error, 0u);
    witness = connect();
    witness->hello();
    witness->open("fixed", wire::flag::kReadOnly);
  }
  void TearDown() override {
    witness.reset();
    server.reset();
    log::set_level(log::Level::kInfo);
  }

  std::unique_ptr<WireClient> connect() {
    return std::make_unique<WireClient>(loop, dir / "socket");
  }
  void expect_witness_served() {
    const auto answer = witness->read(0, treasure.size());
    ASSERT_EQ(answer.header.error, 0u);
    ASSERT_EQ(answer.payload, treasure);
  }
  // Nobody is left but the witness.
  void expect_alone() {
    ASSERT_TRUE(loop.until([&] { return server->sessions() <= 1; }));
  }

  // A connection without any manners.
  UniqueFd raw() {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    (dir / "socket").copy(address.sun_path, sizeof address.sun_path - 1);
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    while (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
      if (errno != EAGAIN) return UniqueFd();
      turn();  // the queue of those who want in is full
    }
    return fd;
  }
  // All of it, or as much as the server takes.
  void send(const UniqueFd& fd, std::span<const std::byte> bytes, int patience = 1000) {
    while (!bytes.empty() && patience-- > 0) {
      const ssize_t sent = ::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0 && errno != EAGAIN) return;
      if (sent > 0) bytes = bytes.subspan(static_cast<std::size_t>(sent));
      turn();
    }
  }
  void turn() {
    bool passed = false;
    loop.reactor().post([&] { passed = true; });
    loop.until([&] { return passed; });
  }
  // Until the server has hung up, or has said so many frames. What it has said.
  Bytes hear(const UniqueFd& fd, std::size_t enough = SIZE_MAX) {
    Bytes said;
    loop.until([&] {
      std::byte piece[4096];
      for (;;) {
        const ssize_t got = ::recv(fd.get(), piece, sizeof piece, 0);
        if (got < 0) {
          // A turn now and then, as nobody else may have anything to do.
          if (errno == EAGAIN) loop.reactor().post([] {});
          return errno != EAGAIN;
        }
        if (got == 0) return true;
        said.insert(said.end(), piece, piece + got);
        if (test::frames_of(said).size() >= enough) return true;
      }
    });
    return said;
  }

  // One session of a well-behaved client with everything in it, as bytes.
  static std::vector<Bytes> good_session(std::uint64_t session) {
    std::vector<Bytes> frames;
    const auto add = [&](wire::Header header, std::span<const std::byte> payload = {}) {
      header.request = frames.size() + 1;
      header.generation = 9;
      header.payload = static_cast<std::uint32_t>(payload.size());
      if (header.type != Type::kHello && header.type != Type::kOpen && header.type != Type::kPing)
        header.handle = 1;
      wire::HeaderBytes bytes;
      wire::encode(header, bytes);
      frames.emplace_back(bytes.begin(), bytes.end());
      test::append(frames.back(), payload);
    };
    static const Uuid writer = uuid_random();
    const Bytes some = test::pattern(100, 1);
    add({.type = Type::kHello}, wire::encode(wire::Hello{.name = "good"}));
    add({.type = Type::kOpen}, std::as_bytes(std::span("mem", 3)));
    add({.type = Type::kClaim, .offset = session}, std::as_bytes(std::span(writer)));
    add({.type = Type::kWrite, .offset = 5, .length = some.size()}, some);
    add({.type = Type::kRead, .offset = 0, .length = 300});
    add({.type = Type::kZero, .offset = 7, .length = 20});
    add({.type = Type::kFlush});
    add({.type = Type::kPing});
    add({.type = Type::kRelease});
    add({.type = Type::kClose});
    return frames;
  }
  static Bytes joined(const std::vector<Bytes>& frames) {
    Bytes stream;
    for (const Bytes& one : frames) test::append(stream, one);
    return stream;
  }

  test::TempDir dir;
  test::Loop loop;
  ServerOptions options;
  std::unique_ptr<Server> server;
  std::unique_ptr<WireClient> witness;
  const Bytes treasure = test::pattern(5000, 3);
};

TEST_F(HostileClient, ClosesAtEveryByte) {
  const std::size_t length = joined(good_session(1)).size();
  for (std::size_t n = 0; n <= length; ++n) {
    const UniqueFd fd = raw();
    const Bytes stream = joined(good_session(n + 1));
    send(fd, std::span(stream).first(n));
    if (n % 2 != 0) {
      ::shutdown(fd.get(), SHUT_WR);
      hear(fd);
    }
    if (n % 100 == 0) expect_witness_served();
  }
  expect_alone();
  expect_witness_served();
  // And none of them has left anything that would be in somebody's way.
  const UniqueFd fd = raw();
  send(fd, joined(good_session(length + 2)));
  const auto answers = test::frames_of(hear(fd, 10));
  ASSERT_EQ(answers.size(), 10u);
  for (const Bytes& answer : answers) {
    wire::Header header;
    ASSERT_EQ(wire::decode(std::span(answer).first<wire::kHeaderBytes>(), 1, header),
              wire::Flaw::kNone);
    EXPECT_EQ(header.error, 0u) << wire::type_name(header.type);
  }
}

TEST_F(HostileClient, OneMistakeInAGoodSession) {
  const std::uint64_t first = test::seed_of_run();
  for (std::uint64_t seed = first; seed < first + kSeeds; ++seed) {
    SCOPED_TRACE("RMEM_SEED=" + std::to_string(seed));
    Spoiler spoiler(seed);
    const UniqueFd fd = raw();
    send(fd, spoiler.spoil(good_session(seed)));
    ::shutdown(fd.get(), SHUT_WR);
    // Whatever it says is well formed, and a REFUSE is the last of it.
    const Bytes said = hear(fd);
    const auto answers = test::frames_of(said);
    std::size_t whole = 0;
    for (std::size_t i = 0; i < answers.size(); ++i) {
      wire::Header header;
      ASSERT_EQ(wire::decode(std::span(answers[i]).first<wire::kHeaderBytes>(), 1, header),
                wire::Flaw::kNone);
      if (header.type == Type::kRefuse) {
        EXPECT_EQ(i, answers.size() - 1);
        EXPECT_NE(header.error, 0u);
        EXPECT_NE(header.payload, 0u);
      }
      whole += answers[i].size();
    }
    EXPECT_EQ(whole, said.size());
    if (seed % 100 == 0) expect_witness_served();
    if (HasFatalFailure()) return;
  }
  expect_alone();
  expect_witness_served();
}

TEST_F(HostileClient, ManyThatSayNothingOrAByteAtATime) {
  std::list<UniqueFd> crowd;
  while (server->sessions() < kMostSessions - 1) {
    crowd.push_back(raw());
    turn();
  }
  const Bytes stream = joined(good_session(1));
  std::size_t at = 0;
  Reactor::Timer trickle(loop.reactor(), [&] {
    for (const UniqueFd& fd : crowd)
      (void)!::send(fd.get(), &stream[at], 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (++at < wire::kHeaderBytes) trickle.arm(20ms);
  });
  trickle.arm(0ms);
  expect_witness_served();
  // The deadline ends them all, and the byte that came last is no progress.
  expect_alone();
  EXPECT_LT(at, wire::kHeaderBytes);
  expect_witness_served();
}

TEST_F(HostileClient, FloodOfConnections) {
  std::list<UniqueFd> crowd;
  std::size_t refused = 0;
  for (int i = 0; i < 400; ++i) crowd.push_back(raw());
  expect_witness_served();
  for (const UniqueFd& fd : crowd) {
    const auto said = test::frames_of(hear(fd));
    ASSERT_EQ(said.size(), 1u);
    wire::Header header;
    ASSERT_EQ(wire::decode(std::span(said[0]).first<wire::kHeaderBytes>(), 1, header),
              wire::Flaw::kNone);
    ASSERT_EQ(header.type, Type::kRefuse);
    refused += header.error == wire::error::kBusy;
  }
  // The others ran into the deadline.
  EXPECT_GE(refused, crowd.size() - kMostSessions);
  expect_alone();
  expect_witness_served();
}

// What one connection can make the server keep in memory.
class HostileClientMemory : public HostileClient {
 protected:
  static std::size_t heap() {
    const auto now = ::mallinfo2();
    return now.uordblks + now.hblkhd;
  }
  // Sends it and reads no answer. The server stops reading at some point.
  void press(const UniqueFd& fd, const Bytes& stream) { send(fd, stream, 300); }
};

TEST_F(HostileClientMemory, BeforeOpenIsSixtyFourKibibytes) {
  Bytes pings = good_session(1)[0];
  for (int i = 0; i < 20'000; ++i) test::append(pings, good_session(1)[7]);
  const std::size_t before = heap();
  std::list<UniqueFd> crowd;
  for (int i = 0; i < 20; ++i) {
    crowd.push_back(raw());
    press(crowd.back(), pings);
  }
  EXPECT_LE(heap(), before + pings.size() / 8 + 20 * (64 << 10));
  expect_witness_served();
}

TEST_F(HostileClientMemory, AfterOpenIsWhatTheLimitsSay) {
  Bytes greedy = joined({good_session(1)[0], good_session(1)[1]});
  wire::Header header;
  header.type = Type::kRead;
  header.handle = 1;
  header.generation = 9;
  header.length = wire::kMaxPayload;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    header.request = 100 + i;
    wire::HeaderBytes bytes;
    wire::encode(header, bytes);
    test::append(greedy, bytes);
  }
  const std::size_t before = heap();
  const UniqueFd fd = raw();
  press(fd, greedy);
  EXPECT_LE(heap(), before + options.session.max_bytes + 2 * wire::kMaxPayload);
  expect_witness_served();
}

}  // namespace
}  // namespace rmem::server
