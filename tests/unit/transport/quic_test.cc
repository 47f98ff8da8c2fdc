// SPDX-License-Identifier: MIT
// QUIC: who is let through, who is not, and what becomes of packets that make no sense.
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "base/log.hh"
#include "support/certificates.hh"
#include "support/loop.hh"
#include "support/slowness.hh"
#include "support/temp_dir.hh"
#include "transport/connector.hh"
#include "transport/quic.hh"

namespace rmem::transport {
namespace {

// Between a client and the server: loses the first `losses` packets of the client's that are
// longer than `longest`, once there is something to lose.
class LossyWay final : private Reactor::Handler {
 public:
  static constexpr std::size_t kLongest = 1000;

  LossyWay(Reactor& reactor, const SocketAddress& server) : reactor_(reactor) {
    const auto local = resolve("127.0.0.1", 0, true, true);
    near_.reset(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    far_.reset(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    EXPECT_EQ(::bind(near_.get(), local->front().get(), local->front().length), 0);
    EXPECT_EQ(::connect(far_.get(), server.get(), server.length), 0);
    for (const int fd : {near_.get(), far_.get()})
      EXPECT_TRUE(reactor_.add(fd, EPOLLIN, *this).ok());
  }
  ~LossyWay() {
    for (const int fd : {near_.get(), far_.get()}) reactor_.remove(fd);
  }

  SocketAddress address() const {
    SocketAddress own;
    own.length = sizeof own.storage;
    EXPECT_EQ(::getsockname(near_.get(), reinterpret_cast<sockaddr*>(&own.storage), &own.length),
              0);
    return own;
  }
  int losses = 0;                  // still to come
  std::vector<std::uint8_t> lost;  // the last one

 private:
  void on_events(std::uint32_t) override {
    std::array<std::uint8_t, 65536> packet;
    client_.length = sizeof client_.storage;
    for (ssize_t size;
         (size = ::recvfrom(near_.get(), packet.data(), packet.size(), 0,
                            reinterpret_cast<sockaddr*>(&client_.storage), &client_.length)) > 0;) {
      if (losses > 0 && static_cast<std::size_t>(size) > kLongest) {
        --losses;
        lost.assign(packet.begin(), packet.begin() + size);
      } else {
        (void)::send(far_.get(), packet.data(), static_cast<std::size_t>(size), 0);
      }
    }
    for (ssize_t size; (size = ::recv(far_.get(), packet.data(), packet.size(), 0)) > 0;)
      (void)::sendto(near_.get(), packet.data(), static_cast<std::size_t>(size), 0, client_.get(),
                     client_.length);
  }

  Reactor& reactor_;
  UniqueFd near_, far_;
  SocketAddress client_;
};

class Quic : public testing::Test, private Listener::Handler {
 protected:
  void SetUp() override {
    if (quic_version() == nullptr) GTEST_SKIP() << "built without QUIC";
    log::set_level(log::Level::kNone);
    for (const char* side : {"s", "c"}) {
      std::filesystem::create_directory(dir / side);
      authority.trust(dir / side);
    }
    authority.issue(dir / "s", "server", {.dns = {"localhost"}});
    visit(authority);
  }
  void TearDown() override { log::set_level(log::Level::kInfo); }

  void visit(test::CertificateAuthority& by) {
    by.issue(dir / "c", "client", {.cn = "alice", .purpose = GNUTLS_KP_TLS_WWW_CLIENT});
  }
  void listen(const QuicLimits& limits = {}) {
    const auto local = resolve("127.0.0.1", 0, true, true);
    auto socket = UdpSocket::bind(local->front());
    ASSERT_TRUE(socket.ok()) << socket.status().cause();
    auto made = quic_listen(loop.reactor(), std::move(socket).value(), server, limits,
                            QuicResetKey{}, *this);
    ASSERT_TRUE(made.ok()) << made.status().cause();
    listener = std::move(made).value();
  }
  using Made = Result<std::unique_ptr<Connection>>;
  Made connect(const std::string& host = "localhost") { return connect(host, listener->address()); }
  Made connect(const std::string& host, const SocketAddress& to) {
    std::optional<Made> made;
    const auto credentials = client.current();
    if (!credentials) return credentials.status();
    auto dialer = quic_dial(loop.reactor(), *credentials, to, host,
                            [&](Made one) { made.emplace(std::move(one)); });
    if (!dialer) return dialer.status();
    loop.until([&] { return made.has_value(); });
    return std::move(*made);
  }
  // Both ends.
  std::unique_ptr<Connection> pair(const SocketAddress& to) {
    auto made = connect("localhost", to);
    EXPECT_TRUE(made.ok()) << made.status().cause();
    EXPECT_TRUE(loop.until([&] { return accepted.size() == 1; }));
    return std::move(made).value();
  }
  static int send_message(Connection& by, std::size_t size) {
    const std::vector<std::byte> bytes(size, std::byte{7});
    const iovec message = {const_cast<std::byte*>(bytes.data()), bytes.size()};
    return by.send_message({&message, 1});
  }
  // The next one's length.
  std::size_t received() {
    std::vector<std::byte> message;
    loop.until([&] { return accepted[0]->receive_message(message); });
    return message.size();
  }
  void on_accept(std::unique_ptr<Connection> connection) override {
    accepted.push_back(std::move(connection));
  }
  // Into the listener, from a socket that speaks no QUIC.
  void throw_at(const std::vector<std::uint8_t>& packet) {
    const UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const SocketAddress& to = listener->address();
    ASSERT_EQ(::sendto(fd.get(), packet.data(), packet.size(), 0, to.get(), to.length),
              static_cast<ssize_t>(packet.size()));
  }

  test::TempDir dir;
  test::Loop loop;
  test::CertificateAuthority authority;
  TlsFiles server{TlsSide::kServer, {.certificates = dir / "s"}};
  TlsFiles client{TlsSide::kClient, {.certificates = dir / "c"}};
  std::unique_ptr<QuicListener> listener;
  std::vector<std::unique_ptr<Connection>> accepted;
};

TEST_F(Quic, EachKnowsTheOther) {
  listen();
  const auto made = connect();
  ASSERT_TRUE(made.ok()) << made.status().cause();
  ASSERT_TRUE(loop.until([&] { return accepted.size() == 1; }));
  EXPECT_EQ(accepted[0]->identities(), (std::vector<std::string>{"cn:alice", "dn:CN=alice"}));
  EXPECT_STREQ((*made)->kind(), "quic");
  EXPECT_GT((*made)->round_trip().count(), 0);
}

TEST_F(Quic, ACertificateForAnotherNameIsRefused) {
  listen();
  const auto made = connect("other.example");
  ASSERT_FALSE(made.ok());
  EXPECT_EQ(made.status().code(), Code::kPermission);
  EXPECT_NE(made.status().cause().find("other.example"), std::string::npos);
  EXPECT_TRUE(accepted.empty());
}

TEST_F(Quic, AServerOfAnotherAuthorityIsRefused) {
  test::CertificateAuthority other;
  other.issue(dir / "s", "server", {.dns = {"localhost"}});
  listen();
  const auto made = connect();
  ASSERT_FALSE(made.ok());
  EXPECT_EQ(made.status().code(), Code::kPermission);
}

// The client is through before the server has looked at its certificate.
TEST_F(Quic, AClientOfAnotherAuthorityIsCutOff) {
  test::CertificateAuthority other;
  visit(other);
  listen();
  const auto made = connect();
  if (made.ok()) {
    std::byte byte;
    const iovec space = {&byte, 1};
    ASSERT_TRUE(loop.until([&] { return (*made)->receive({&space, 1}).err == ECONNRESET; }));
    EXPECT_EQ((*made)->failure().code(), Code::kPermission);
  }
  EXPECT_TRUE(accepted.empty());
}

TEST_F(Quic, NobodyThereIsSaidAtOnce) {
  listen();
  const SocketAddress gone = listener->address();
  listener.reset();
  loop.run_for(std::chrono::milliseconds(10));
  std::optional<Made> made;
  auto dialer = quic_dial(loop.reactor(), *client.current(), gone, "localhost",
                          [&](Made one) { made.emplace(std::move(one)); });
  ASSERT_TRUE(dialer.ok());
  ASSERT_TRUE(loop.until([&] { return made.has_value(); }));
  EXPECT_EQ(made->status().err(), ECONNREFUSED);
}

// With no handshake to spare, a client has to show first where it is.
TEST_F(Quic, AClientThatIsAskedForItsAddressIsLetThrough) {
  listen({.pending = 3});  // a quarter of that: none
  const auto made = connect();
  ASSERT_TRUE(made.ok()) << made.status().cause();
  EXPECT_TRUE(loop.until([&] { return accepted.size() == 1; }));
}

TEST_F(Quic, OneHostHasSoManyHandshakesAtATime) {
  listen({.pending_per_host = 0});
  std::optional<Made> made;
  auto dialer = quic_dial(loop.reactor(), *client.current(), listener->address(), "localhost",
                          [&](Made one) { made.emplace(std::move(one)); });
  ASSERT_TRUE(dialer.ok());
  loop.run_for(std::chrono::milliseconds(50));
  EXPECT_FALSE(made.has_value());
  EXPECT_TRUE(accepted.empty());
}

// First flights, each of another client, whose authors are never heard of again.
TEST_F(Quic, AFloodOfHandshakesIsBoundedAndTheHonestGetThrough) {
  listen({.pending_per_host = 256});
  LossyWay nowhere(loop.reactor(), listener->address());  // takes what comes, and passes on
  nowhere.losses = 1 << 30;                               // none of it
  const auto flight = [&] {
    nowhere.lost.clear();
    auto dialer =
        quic_dial(loop.reactor(), *client.current(), nowhere.address(), "localhost", [](Made) {});
    EXPECT_TRUE(dialer.ok());
    EXPECT_TRUE(loop.until([&] { return !nowhere.lost.empty(); }));
    return nowhere.lost;
  };
  const auto resident = [] {
    std::ifstream statm("/proc/self/statm");
    std::size_t all = 0, pages = 0;
    statm >> all >> pages;
    return pages * 4096;
  };
  for (int i = 0; i < 100; ++i) throw_at(flight());
  loop.run_for(std::chrono::milliseconds(20));
  const std::size_t before = resident();
  for (std::uint64_t i = 0; i < 2000 / test::kSlowness; ++i) {
    throw_at(flight());
    if (i % 10 == 0) loop.run_for(std::chrono::milliseconds(1));
    if (i % (400 / test::kSlowness) == 10) {
      const auto made = connect();
      EXPECT_TRUE(made.ok()) << i << ": " << made.status().cause();
    }
  }
  // Sanitizers keep what was freed.
  if (test::kSlowness == 1) {
    EXPECT_LE(resident(), before + (16 << 20));
  }
  EXPECT_TRUE(loop.until([&] { return accepted.size() == 5; }));
}

TEST_F(Quic, ALostMessageHoldsUpNoOther) {
  listen();
  LossyWay way(loop.reactor(), listener->address());
  const auto client = pair(way.address());
  loop.run_for(std::chrono::milliseconds(50));
  way.losses = 2;
  ASSERT_EQ(send_message(*client, LossyWay::kLongest + 100), 0);
  ASSERT_TRUE(loop.until([&] { return way.losses < 2; }));
  ASSERT_EQ(send_message(*client, 10), 0);
  EXPECT_EQ(received(), 10u);
  EXPECT_EQ(received(), LossyWay::kLongest + 100);
}

TEST_F(Quic, AMessageGoesInFrontOfTheStream) {
  listen();
  const auto client = pair(listener->address());
  std::vector<std::byte> bulk(1 << 20);
  const iovec bytes = {bulk.data(), bulk.size()};
  ASSERT_EQ(client->send({&bytes, 1}).bytes, bulk.size());
  ASSERT_EQ(send_message(*client, 4096), 0);
  EXPECT_EQ(received(), 4096u);
  EXPECT_LT(accepted[0]->receive({&bytes, 1}).bytes, bulk.size() / 2);
}

TEST_F(Quic, MessagesHaveLimits) {
  constexpr std::size_t kLongest = 32 << 10;
  listen();
  const auto client = pair(listener->address());
  EXPECT_EQ(send_message(*client, 0), EMSGSIZE);
  EXPECT_EQ(send_message(*client, kLongest + 1), EMSGSIZE);
  // So many that nobody has read.
  std::size_t count = 0;
  while (count < 2000 && send_message(*client, 1) == 0) ++count;
  EXPECT_EQ(count, 512u);
  EXPECT_EQ(send_message(*client, 1), EMSGSIZE);
  for (std::size_t i = 0; i < count; ++i) EXPECT_EQ(received(), 1u);
  EXPECT_TRUE(loop.until([&] { return send_message(*client, 1) == 0; }));
  // And no more bytes than a link keeps.
  count = 0;
  while (send_message(*client, kLongest) == 0) ++count;
  EXPECT_EQ(count, (8 << 20) / kLongest);
  EXPECT_EQ(send_message(*client, 1), EAGAIN);
}

// What is accepted goes out, whoever has gone.
TEST_F(Quic, MessagesOfOneWhoHasGoneStillArrive) {
  listen();
  auto client = pair(listener->address());
  ASSERT_EQ(send_message(*client, 32 << 10), 0);
  ASSERT_EQ(send_message(*client, 100), 0);
  client.reset();
  EXPECT_EQ(received(), std::size_t{32} << 10);
  EXPECT_EQ(received(), 100u);
}

TEST_F(Quic, WhatMakesNoSenseHarmsNobody) {
  listen();
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 chance(seed);
  for (int i = 0; i < 2000; ++i) {
    std::vector<std::uint8_t> packet(1 + chance() % 1400);
    for (auto& byte : packet) byte = static_cast<std::uint8_t>(chance());
    // Half of them as an Initial of version 1.
    if (i % 2 == 0 && packet.size() > 6) {
      packet[0] = 0xc0 | (packet[0] & 0x0f);
      packet[1] = packet[2] = packet[3] = 0;
      packet[4] = 1;
      packet[5] = static_cast<std::uint8_t>(chance() % 21);
    }
    throw_at(packet);
    if (i % 50 == 0) loop.run_for(std::chrono::milliseconds(1));
  }
  const auto made = connect();
  EXPECT_TRUE(made.ok()) << made.status().cause();
}

}  // namespace
}  // namespace rmem::transport
