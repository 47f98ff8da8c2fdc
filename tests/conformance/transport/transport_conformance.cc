// SPDX-License-Identifier: MIT
// What transport.hh promises, asked of every transport.
#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <string>

#include "support/certificates.hh"
#include "support/loop.hh"
#include "support/store_ops.hh"
#include "support/temp_dir.hh"
#include "transport/connector.hh"
#include "transport/pair.hh"
#include "transport/quic.hh"
#include "transport/socket.hh"
#include "transport/tls_acceptor.hh"

namespace rmem::transport {
namespace {

// Of both sockets.
#ifdef RMEM_SANITIZED
constexpr std::size_t kMoreThanBuffers = 20'000'000;
#else
constexpr std::size_t kMoreThanBuffers = 60'000'000;
#endif

// One end: sends what it is given, keeps what it gets.
struct End final : Connection::Handler {
  std::unique_ptr<Connection> connection;
  std::vector<std::byte> to_send;
  std::size_t sent = 0;
  std::vector<std::byte> got;
  int error = 0;
  bool closed = false;
  bool hangup = false;
  bool reading = true;

  void use(std::unique_ptr<Connection> made) {
    connection = std::move(made);
    connection->attach(*this);
    update();
  }
  void update() {
    if (connection) connection->watch(reading && !closed, sent < to_send.size());
  }
  void on_readable() override {
    std::byte buffer[5000];
    // Two buffers, to see that they are filled in order.
    const iovec space[] = {{buffer, 1234}, {buffer + 1234, sizeof buffer - 1234}};
    const IoResult result = connection->receive(space);
    if (result.err == EAGAIN) return;
    got.insert(got.end(), buffer, buffer + result.bytes);
    closed = result.closed();
    error = result.err;
    if (error != 0) closed = true;
    update();
  }
  void on_writable() override {
    if (sent == to_send.size()) return update();
    const std::size_t left = to_send.size() - sent;
    const std::size_t half = left / 2;
    const iovec buffers[] = {{to_send.data() + sent, half},
                             {to_send.data() + sent + half, left - half}};
    const IoResult result = connection->send(buffers);
    if (result.err != 0 && result.err != EAGAIN) error = result.err, sent = to_send.size();
    sent += result.bytes;
    update();
  }
  void on_hangup() override {
    hangup = true;
    connection.reset();
  }
};

class TransportConformance : public testing::TestWithParam<std::string>, private Listener::Handler {
 protected:
  void SetUp() override {
    if (GetParam() == "pair") {
      auto [a, b] = make_pair(loop.reactor(), 1000);
      one.use(std::move(a));
      two.use(std::move(b));
      return;
    }
    const bool quic = GetParam().starts_with("quic");
    const bool tls = GetParam().starts_with("tls") || quic;
    Listener::Handler* to = this;
    if (tls) {
      const TlsOptions options = test::make_tls_files(dir.path(), GetParam().ends_with("_psk"));
      server_files = std::make_unique<TlsFiles>(TlsSide::kServer, options);
      client_files = std::make_unique<TlsFiles>(TlsSide::kClient, options);
      acceptor =
          std::make_unique<TlsAcceptor>(loop.reactor(), *server_files, TlsAcceptor::Limits{}, *to);
      to = acceptor.get();
    }
    Address at;
    if (GetParam() == "unix")
      at.path = dir / "socket";
    else
      at.host = GetParam() == "tcp6" ? "::1" : "127.0.0.1", at.port = 0;
    if (quic) return dial(at);
    auto listening = SocketListener::listen(loop.reactor(), at, *to);
    if (!listening.ok() && GetParam() == "tcp6") GTEST_SKIP() << "no IPv6 here";
    ASSERT_TRUE(listening.ok()) << listening.status().cause();
    listeners = std::move(listening).value();
    if (!at.is_unix()) {
      at.port = listeners[0]->address().port();
    }
    std::optional<Connector::Tls> over;
    if (tls) over.emplace(Connector::Tls{*client_files, "localhost"});
    connect(at, over);
  }
  void dial(Address at) {
    if (quic_version() == nullptr) GTEST_SKIP() << "built without QUIC";
    const auto local = resolve(at.host, 0, true, true);
    auto socket = UdpSocket::bind(local->front());
    ASSERT_TRUE(socket.ok()) << socket.status().cause();
    auto listening = quic_listen(loop.reactor(), std::move(socket).value(), *server_files,
                                 QuicLimits{}, QuicResetKey{}, *this);
    ASSERT_TRUE(listening.ok()) << listening.status().cause();
    quic_listener = std::move(listening).value();
    at.port = quic_listener->address().port();
    connect(at, Connector::Tls{*client_files, "localhost", true});
  }
  void connect(const Address& at, const std::optional<Connector::Tls>& over) {
    Connector connector(
        loop.reactor(), true,
        [&](Result<std::unique_ptr<Connection>> result) {
          ASSERT_TRUE(result.ok()) << result.status().cause();
          one.use(std::move(result).value());
        },
        over);
    connector.start(at);
    ASSERT_TRUE(loop.until([&] { return one.connection && two.connection; }));
  }
  void on_accept(std::unique_ptr<Connection> connection) override {
    two.use(std::move(connection));
  }

  test::TempDir dir;
  test::Loop loop;
  std::unique_ptr<TlsFiles> server_files, client_files;
  std::unique_ptr<TlsAcceptor> acceptor;
  std::vector<std::unique_ptr<SocketListener>> listeners;
  std::unique_ptr<QuicListener> quic_listener;
  End one, two;
};

TEST_P(TransportConformance, BytesArriveInOrderBothWaysAtOnce) {
  one.to_send = test::pattern(3'000'000, 1);
  two.to_send = test::pattern(2'000'000, 2);
  one.update();
  two.update();
  loop.until([&] { return two.got.size() == 3'000'000 && one.got.size() == 2'000'000; });
  EXPECT_TRUE(two.got == one.to_send);
  EXPECT_TRUE(one.got == two.to_send);
}

TEST_P(TransportConformance, NothingThereIsEagain) {
  std::byte byte;
  const iovec space = {&byte, 1};
  EXPECT_EQ(one.connection->receive({&space, 1}).err, EAGAIN);
}

TEST_P(TransportConformance, WhatWaitsForMoreGoesWithIt) {
  const auto bytes = test::pattern(700, 6);
  for (std::size_t at = 0; at < bytes.size(); at += 100) {
    const iovec buffer = {const_cast<std::byte*>(bytes.data()) + at, 100};
    ASSERT_EQ(one.connection->send({&buffer, 1}, at + 100 < bytes.size()).bytes, 100u);
  }
  loop.until([&] { return two.got.size() == bytes.size(); });
  EXPECT_EQ(two.got, bytes);
}

TEST_P(TransportConformance, BytesSentBeforeTheCloseArriveFirst) {
  const auto bytes = test::pattern(500, 3);
  const iovec buffer = {const_cast<std::byte*>(bytes.data()), bytes.size()};
  ASSERT_EQ(one.connection->send({&buffer, 1}).bytes, bytes.size());
  one.connection.reset();
  loop.until([&] { return two.closed; });
  EXPECT_EQ(two.got, bytes);
  EXPECT_EQ(two.error, 0);
}

TEST_P(TransportConformance, SendingToAClosedPeerFailsWithoutASignal) {
  two.connection.reset();
  one.reading = false;
  one.to_send = test::pattern(10'000'000, 4);
  one.update();
  loop.until([&] { return one.error != 0 || one.hangup; });
  EXPECT_TRUE(one.hangup || one.error == EPIPE || one.error == ECONNRESET) << one.error;
}

TEST_P(TransportConformance, UnwatchedReadingHoldsTheSenderBack) {
  two.reading = false;
  two.update();
  one.to_send = test::pattern(kMoreThanBuffers, 5);
  one.update();
  loop.run_for(std::chrono::milliseconds(100));
  EXPECT_TRUE(two.got.empty());
  EXPECT_LT(one.sent, one.to_send.size());
  two.reading = true;
  two.update();
  if (GetParam() != "pair") {  // a byte at a time through a deque takes its time
    loop.until([&] { return two.got.size() == one.to_send.size(); });
    EXPECT_TRUE(two.got == one.to_send);
  }
}

TEST_P(TransportConformance, NeedsNoChecksumsHere) {
  EXPECT_TRUE(one.connection->intact());
  EXPECT_TRUE(two.connection->intact());
  EXPECT_FALSE(one.connection->peer().empty());
}

INSTANTIATE_TEST_SUITE_P(Transports, TransportConformance,
                         testing::Values("pair", "tcp4", "tcp6", "unix", "tls_x509", "tls_psk",
                                         "quic_x509", "quic_psk"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace rmem::transport
