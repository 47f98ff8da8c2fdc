// SPDX-License-Identifier: MIT
// TLS: who is let through, who is not, and what is said about it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "base/log.hh"
#include "support/certificates.hh"
#include "support/loop.hh"
#include "support/store_ops.hh"
#include "support/temp_dir.hh"
#include "transport/pair.hh"
#include "transport/tls_acceptor.hh"
#include "transport/tls_connection.hh"

namespace rmem::transport {
namespace {

using testing::Test;
using Wish = test::CertificateAuthority::Wish;

constexpr const char* kClientPurpose = GNUTLS_KP_TLS_WWW_CLIENT;

// Nothing but to hear of what comes.
struct Listening final : Connection::Handler {
  Connection* connection = nullptr;
  std::string got;
  std::optional<int> ended;

  void on_readable() override {
    char buffer[1000];
    const iovec space = {buffer, sizeof buffer};
    const IoResult result = connection->receive({&space, 1});
    if (result.err == EAGAIN) return;
    got.append(buffer, result.bytes);
    if (result.bytes == 0) end(result.err);
  }
  void on_writable() override {}
  void on_hangup() override { end(ECONNRESET); }
  void end(int err) {
    ended = err;
    connection->watch(false, false);
  }
};

class Tls : public Test, protected Listener::Handler {
 protected:
  void SetUp() override {
    log::set_level(log::Level::kNone);
    for (const char* side : {"s", "c"}) std::filesystem::create_directory(dir / side);
    server.certificates = dir / "s";
    client.certificates = dir / "c";
    server.kernel = client.kernel = TlsOptions::Kernel::kOff;
    authority.trust(dir / "s");
    authority.trust(dir / "c");
    serve({.dns = {"server.example", "localhost"}});
    visit({.cn = "alice", .emails = {"alice@example.org"}});
  }
  void TearDown() override { log::set_level(log::Level::kInfo); }

  void serve(const Wish& wish) { server_serial = authority.issue(dir / "s", "server", wish); }
  void visit(Wish wish) {
    if (wish.purpose == Wish().purpose) wish.purpose = kClientPurpose;
    client_serial = authority.issue(dir / "c", "client", wish);
  }

  // What each end says, of a handshake and what comes after it.
  struct Outcome {
    Status client, server;
  };
  Outcome meet(const std::string& host = "server.example") {
    TlsFiles server_files(TlsSide::kServer, server);
    TlsFiles client_files(TlsSide::kClient, client);
    auto [a, b] = make_pair(loop.reactor(), 4000);
    Outcome outcome;
    auto ours = server_files.current();
    auto theirs = client_files.current();
    if (!ours) outcome.server = ours.status();
    if (!theirs) outcome.client = theirs.status();
    if (!ours || !theirs) return outcome;
    auto made_a = TlsConnection::create(loop.reactor(), *theirs, std::move(a), host);
    auto made_b = TlsConnection::create(loop.reactor(), *ours, std::move(b), {});
    EXPECT_TRUE(made_a.ok() && made_b.ok());
    one = std::move(made_a).value();
    two = std::move(made_b).value();
    std::optional<Status> first, second;
    two->shake_hands([&](const Status& status) { second = status; });
    one->shake_hands([&](const Status& status) { first = status; });
    loop.until([&] { return first && second; });
    outcome = {*first, *second};
    // The client hears of a refusal only when it listens.
    if (first->ok() && !second->ok()) {
      listening.connection = one.get();
      one->attach(listening);
      one->watch(true, false);
      two.reset();
      loop.until([&] { return listening.ended.has_value(); });
      outcome.client = one->failure();
    }
    return outcome;
  }
  static bool says(const Status& status, const std::string& what) {
    return status.cause().find(what) != std::string::npos;
  }

  void on_accept(std::unique_ptr<Connection> connection) override {
    accepted.push_back(std::move(connection));
  }

  test::TempDir dir;
  test::Loop loop;
  test::CertificateAuthority authority;
  std::uint8_t server_serial = 0, client_serial = 0;
  TlsOptions server, client;
  std::unique_ptr<TlsConnection> one, two;
  Listening listening;
  std::vector<std::unique_ptr<Connection>> accepted;
};

TEST_F(Tls, BothKnowWhoTheOtherIs) {
  const Outcome outcome = meet();
  ASSERT_TRUE(outcome.client.ok()) << outcome.client.cause();
  ASSERT_TRUE(outcome.server.ok()) << outcome.server.cause();
  EXPECT_THAT(two->identities(),
              testing::UnorderedElementsAre("cn:alice", "dn:CN=alice", "email:alice@example.org"));
  EXPECT_THAT(one->identities(), testing::Contains("dns:server.example"));
  EXPECT_TRUE(one->intact());
  EXPECT_STREQ(one->kind(), "tls");
  EXPECT_EQ(one->socket(), -1) << "others would send in clear there";
}

TEST_F(Tls, NothingGoesInClear) {
  struct Recorder final : Connection {
    Recorder(std::unique_ptr<Connection> below, std::string& seen)
        : below(std::move(below)), seen(seen) {}
    void attach(Handler& handler) override { below->attach(handler); }
    void watch(bool r, bool w) override { below->watch(r, w); }
    IoResult receive(std::span<const iovec> buffers) override { return below->receive(buffers); }
    IoResult send(std::span<const iovec> buffers, bool more) override {
      const IoResult sent = below->send(buffers, more);
      std::size_t left = sent.bytes;
      for (const iovec& buffer : buffers) {
        const std::size_t count = std::min(left, buffer.iov_len);
        seen.append(static_cast<const char*>(buffer.iov_base), count);
        left -= count;
      }
      return sent;
    }
    bool intact() const override { return true; }
    bool local() const override { return true; }
    const char* kind() const override { return "recorder"; }
    const std::string& peer() const override { return below->peer(); }
    std::unique_ptr<Connection> below;
    std::string& seen;
  };
  TlsFiles server_files(TlsSide::kServer, server);
  TlsFiles client_files(TlsSide::kClient, client);
  std::string seen;
  auto [a, b] = make_pair(loop.reactor(), 100'000);
  one =
      std::move(TlsConnection::create(loop.reactor(), *client_files.current(),
                                      std::make_unique<Recorder>(std::move(a), seen), "localhost"))
          .value();
  two = std::move(TlsConnection::create(loop.reactor(), *server_files.current(), std::move(b), {}))
            .value();
  int shaken = 0;
  for (TlsConnection* end : {two.get(), one.get()})
    end->shake_hands([&](const Status& status) { shaken += status.ok(); });
  loop.until([&] { return shaken == 2; });
  listening.connection = two.get();
  two->attach(listening);
  two->watch(true, false);
  const std::string marker = "attack at dawn";
  const iovec buffer = {const_cast<char*>(marker.data()), marker.size()};
  ASSERT_EQ(one->send({&buffer, 1}, false).bytes, marker.size());
  loop.until([&] { return listening.got == marker; });
  EXPECT_GT(seen.size(), marker.size());
  EXPECT_EQ(seen.find(marker), std::string::npos);
  EXPECT_EQ(seen.find("alice"), std::string::npos) << "TLS 1.3 hides who we are";
  one.reset();  // which says farewell to `seen`
}

TEST_F(Tls, ServerOfAnotherAuthorityIsRefused) {
  test::CertificateAuthority other("somebody else");
  other.issue(dir / "s", "server", {.dns = {"server.example"}});
  const Outcome outcome = meet();
  EXPECT_EQ(outcome.client.code(), Code::kPermission);
  EXPECT_TRUE(says(outcome.client, "issuer is unknown")) << outcome.client.cause();
  EXPECT_TRUE(says(outcome.server, "refused us")) << outcome.server.cause();
}

TEST_F(Tls, ClientOfAnotherAuthorityIsRefusedAndHearsWhy) {
  test::CertificateAuthority other("somebody else");
  other.issue(dir / "c", "client", {.cn = "alice", .purpose = kClientPurpose});
  const Outcome outcome = meet();
  EXPECT_EQ(outcome.server.code(), Code::kPermission);
  EXPECT_TRUE(says(outcome.server, "issuer is unknown")) << outcome.server.cause();
  EXPECT_EQ(outcome.client.code(), Code::kPermission);
  EXPECT_TRUE(says(outcome.client, "refused us")) << outcome.client.cause();
}

TEST_F(Tls, ExpiredAndComingCertificatesAreRefused) {
  serve({.dns = {"server.example"}, .begins = -7200, .ends = -60});
  EXPECT_TRUE(says(meet().client, "expired"));
  serve({.dns = {"server.example"}, .begins = 3600, .ends = 7200});
  EXPECT_TRUE(says(meet().client, "not yet"));
  serve({.dns = {"server.example"}});
  visit({.cn = "alice", .begins = -7200, .ends = -60});
  EXPECT_TRUE(says(meet().server, "expired"));
}

TEST_F(Tls, RevokedCertificatesAreRefused) {
  authority.revoke(dir / "s", client_serial);
  EXPECT_TRUE(says(meet().server, "revoked"));
  visit({.cn = "alice"});
  EXPECT_TRUE(meet().server.ok()) << "a new one is none of those";
  authority.revoke(dir / "c", server_serial);
  EXPECT_TRUE(says(meet().client, "revoked"));
}

TEST_F(Tls, NameHasToBeThatOfTheServer) {
  const Outcome outcome = meet("other.example");
  EXPECT_EQ(outcome.client.code(), Code::kPermission);
  EXPECT_TRUE(says(outcome.client, "other.example")) << outcome.client.cause();
  EXPECT_TRUE(says(outcome.client, "name")) << outcome.client.cause();
  EXPECT_FALSE(meet("192.0.2.1").client.ok());
  serve({.dns = {"server.example"}, .address = {192, 0, 2, 1}});
  EXPECT_TRUE(meet("192.0.2.1").client.ok());
}

TEST_F(Tls, CertificateForTheOtherRoleIsRefused) {
  serve({.dns = {"server.example"}, .purpose = kClientPurpose});
  EXPECT_TRUE(says(meet().client, "purpose")) << "a client must not pose as a server";
  serve({.dns = {"server.example"}});
  authority.issue(dir / "c", "client", {.cn = "alice"});
  EXPECT_TRUE(says(meet().server, "purpose"));
}

TEST_F(Tls, ClientWithoutCertificateIsRefusedUnlessNobodyAsks) {
  std::filesystem::remove(dir / "c/client-cert.pem");
  Outcome outcome = meet();
  EXPECT_TRUE(says(outcome.server, "no certificate")) << outcome.server.cause();
  EXPECT_EQ(outcome.client.code(), Code::kPermission) << outcome.client.cause();
  server.verify_peer = false;
  outcome = meet();
  EXPECT_TRUE(outcome.server.ok()) << outcome.server.cause();
  EXPECT_TRUE(two->identities().empty());
}

class TlsKeys : public Tls {
 protected:
  void SetUp() override {
    Tls::SetUp();
    server.certificates = client.certificates = {};
    server.psk = dir / "s/keys";
    client.psk = dir / "c/keys";
    test::write_secret(server.psk,
                       "# two\nalice:00112233445566778899aabbccddeeff\n\n"
                       "bob:ffeeddccbbaa99887766554433221100\r\n");
    test::write_secret(client.psk, "alice:00112233445566778899AABBCCDDEEFF\n");
  }
};

TEST_F(TlsKeys, SharedKeyIsEnough) {
  const Outcome outcome = meet("anything");
  ASSERT_TRUE(outcome.client.ok()) << outcome.client.cause();
  ASSERT_TRUE(outcome.server.ok()) << outcome.server.cause();
  EXPECT_THAT(two->identities(), testing::ElementsAre("psk:alice"));
}

TEST_F(TlsKeys, WrongKeyAndUnknownIdentityFailAlike) {
  test::write_secret(client.psk, "alice:0123456789abcdef0123456789abcdef\n");
  const Outcome wrong = meet();
  test::write_secret(client.psk, "mallory:0123456789abcdef0123456789abcdef\n");
  const Outcome unknown = meet();
  EXPECT_EQ(wrong.server.code(), Code::kPermission) << wrong.server.cause();
  EXPECT_EQ(wrong.client.code(), Code::kPermission) << wrong.client.cause();
  EXPECT_EQ(wrong.client.cause(), unknown.client.cause());
  EXPECT_EQ(wrong.server.cause(), unknown.server.cause());
}

TEST_F(TlsKeys, OneOfSeveralIsNamed) {
  test::write_secret(client.psk,
                     "alice:00112233445566778899aabbccddeeff\n"
                     "bob:ffeeddccbbaa99887766554433221100\n");
  EXPECT_TRUE(says(meet().client, "several identities"));
  client.username = "bob";
  EXPECT_TRUE(meet().client.ok());
  EXPECT_THAT(two->identities(), testing::ElementsAre("psk:bob"));
  client.username = "carol";
  EXPECT_EQ(meet().client.code(), Code::kNotFound);
}

TEST_F(TlsKeys, ServerTakesKeysAndCertificates) {
  server.certificates = dir / "s";
  EXPECT_TRUE(meet().server.ok());
  EXPECT_THAT(two->identities(), testing::ElementsAre("psk:alice"));
  client.psk = {};
  client.certificates = dir / "c";
  EXPECT_TRUE(meet().server.ok());
  EXPECT_THAT(two->identities(), testing::Contains("cn:alice"));
}

TEST_F(TlsKeys, BadFilesAreRefusedByNameAndLine) {
  for (const char* text :
       {"alice\n", "alice:0\n", "alice:xy\n", ":00112233445566778899aabb\n", "alice:0011\n", "\n",
        "a:00112233445566778899aabbccddeeff\n"
        "a:00112233445566778899aabbccddeeff\n"}) {
    test::write_secret(server.psk, text);
    const Outcome outcome = meet();
    EXPECT_EQ(outcome.server.code(), Code::kFailed) << text;
    EXPECT_TRUE(says(outcome.server, server.psk)) << outcome.server.cause();
    EXPECT_FALSE(says(outcome.server, "0011")) << "a secret in a message";
  }
  std::filesystem::remove(server.psk);
  EXPECT_EQ(meet().server.code(), Code::kNotFound);
}

TEST_F(TlsKeys, SecretThatOthersCanReadIsRefused) {
  ::chmod(server.psk.c_str(), 0644);
  EXPECT_EQ(meet().server.code(), Code::kPermission);
  ::chmod(server.psk.c_str(), 0640);
  EXPECT_TRUE(meet().server.ok()) << "a group of its own may";
}

TEST_F(Tls, KeyAndCertificateHaveToFit) {
  std::filesystem::copy_file(dir / "c/client-key.pem", dir / "s/server-key.pem",
                             std::filesystem::copy_options::overwrite_existing);
  ::chmod((dir / "s/server-key.pem").c_str(), 0600);
  EXPECT_EQ(meet().server.code(), Code::kFailed);
  std::filesystem::remove(dir / "s/ca-cert.pem");
  EXPECT_EQ(meet().server.code(), Code::kNotFound);
}

TEST_F(Tls, FilesAreFollowedAndHalfARenewalIsNot) {
  TlsFiles files(TlsSide::kServer, server);
  const auto first = *files.current();
  EXPECT_EQ(*files.current(), first) << "read again for nothing";
  // The certificate of the next key, and still the old key.
  std::filesystem::create_directory(dir / "next");
  authority.issue(dir / "next", "server", {.dns = {"server.example"}});
  const auto renew = [&](const std::string& name) {
    std::filesystem::rename(dir / ("next/" + name), dir / ("s/" + name));
  };
  renew("server-cert.pem");
  EXPECT_EQ(*files.current(), first);
  renew("server-key.pem");
  EXPECT_NE(*files.current(), first);
}

TEST_F(Tls, WhoSpeaksNoTlsIsRefusedByThatName) {
  TlsFiles files(TlsSide::kServer, server);
  auto [a, b] = make_pair(loop.reactor(), 4000);
  two =
      std::move(TlsConnection::create(loop.reactor(), *files.current(), std::move(b), {})).value();
  std::optional<Status> status;
  two->shake_hands([&](const Status& s) { status = s; });
  const std::string text = "GET / HTTP/1.1\r\nHost: server.example\r\n\r\n";
  const iovec buffer = {const_cast<char*>(text.data()), text.size()};
  ASSERT_EQ(a->send({&buffer, 1}, false).bytes, text.size());
  loop.until([&] { return status.has_value(); });
  EXPECT_EQ(status->code(), Code::kFailed);
  EXPECT_TRUE(says(*status, "does not speak TLS")) << status->cause();
}

TEST_F(Tls, PeerThatGoesInTheMiddleIsUnreachable) {
  TlsFiles files(TlsSide::kClient, client);
  auto [a, b] = make_pair(loop.reactor(), 4000);
  one =
      std::move(TlsConnection::create(loop.reactor(), *files.current(), std::move(a), "x")).value();
  std::optional<Status> status;
  one->shake_hands([&](const Status& s) { status = s; });
  b.reset();
  loop.until([&] { return status.has_value(); });
  EXPECT_EQ(status->code(), Code::kUnreachable) << status->cause();
}

TEST_F(Tls, EndOfTheOtherIsAProperEnd) {
  ASSERT_TRUE(meet().client.ok());
  listening.connection = two.get();
  two->attach(listening);
  two->watch(true, false);
  const std::string text = "good";
  const iovec buffer = {const_cast<char*>(text.data()), text.size()};
  ASSERT_EQ(one->send({&buffer, 1}, false).bytes, text.size());
  one.reset();
  loop.until([&] { return listening.ended.has_value(); });
  EXPECT_EQ(listening.got, "good");
  EXPECT_EQ(*listening.ended, 0);
}

TEST_F(Tls, KernelIsRequiredAndNotThere) {
  client.kernel = TlsOptions::Kernel::kRequired;
  const Outcome outcome = meet();
  EXPECT_EQ(outcome.client.code(), Code::kFailed);
  EXPECT_TRUE(says(outcome.client, "in the kernel")) << outcome.client.cause();
}

// --- many at once ----------------------------------------------------------------

TEST_F(Tls, HalfOpenConnectionsAreBoundedAndTheHonestGetThrough) {
  TlsFiles files(TlsSide::kServer, server);
  TlsFiles client_files(TlsSide::kClient, client);
  TlsAcceptor acceptor(loop.reactor(), files, {.timeout = std::chrono::seconds(60), .pending = 16},
                       *this);
  std::vector<std::unique_ptr<Connection>> silent;
  const auto flood = [&](int count) {
    for (int i = 0; i < count; ++i) {
      auto [a, b] = make_pair(loop.reactor(), 4000);
      silent.push_back(std::move(a));
      acceptor.on_accept(std::move(b));
      EXPECT_LE(acceptor.pending(), 16u);
    }
  };
  flood(5'000);
  auto [a, b] = make_pair(loop.reactor(), 4000);
  acceptor.on_accept(std::move(b));
  one = std::move(TlsConnection::create(loop.reactor(), *client_files.current(), std::move(a),
                                        "localhost"))
            .value();
  one->shake_hands([](const Status&) {});
  // More come while its handshake is under way, but not more than there is room for.
  flood(10);
  loop.until([&] { return accepted.size() == 1; });
  EXPECT_THAT(accepted[0]->identities(), testing::Contains("cn:alice"));
  flood(5'000);
  EXPECT_EQ(acceptor.pending(), 16u);
}

TEST_F(Tls, SlowHandshakeIsCutOff) {
  TlsFiles files(TlsSide::kServer, server);
  TlsAcceptor acceptor(loop.reactor(), files, {.timeout = std::chrono::milliseconds(50)}, *this);
  auto [a, b] = make_pair(loop.reactor(), 4000);
  acceptor.on_accept(std::move(b));
  EXPECT_EQ(acceptor.pending(), 1u);
  loop.until([&] { return acceptor.pending() == 0; });
  EXPECT_TRUE(accepted.empty());
}

}  // namespace
}  // namespace rmem::transport
