// SPDX-License-Identifier: MIT
// The remote store over TLS: what it says of those that it does not believe, and keys that
// have served their time.
#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <optional>

#include "base/log.hh"
#include "server/server.hh"
#include "store/remote.hh"
#include "support/certificates.hh"
#include "support/loop.hh"
#include "support/store_ops.hh"
#include "support/temp_dir.hh"

namespace rmem::store {
namespace {

using namespace std::chrono_literals;

class RemoteTls : public testing::Test, protected RemoteStore::Listener {
 protected:
  void SetUp() override {
    log::set_level(log::Level::kNone);
    tls = test::make_tls_files(dir.path());
    serve(tls);
  }
  void TearDown() override { log::set_level(log::Level::kInfo); }

  void serve(const transport::TlsOptions& files) {
    server::ServerOptions options;
    options.tls = files;
    options.exports = {*server::ExportSpec::parse("mem=mem://4MiB")};
    server = std::move(server::Server::create(loop.reactor(), options)).value();
    ASSERT_TRUE(
        server->listen({.host = "127.0.0.1", .port = 0, .kind = transport::Address::Kind::kTls})
            .ok());
    port = server->addresses().front().port();
  }
  std::unique_ptr<RemoteStore> make(const std::string& hostname, bool over_tls = true) {
    RemoteAddress address;
    address.host = "127.0.0.1";
    address.port = port;
    address.export_name = "mem";
    if (over_tls) address.kind = transport::Address::Kind::kTls;
    address.tls_hostname = hostname;
    RemoteOptions options;
    options.tls = tls;
    options.keep_alive = 100ms;
    auto made = RemoteStore::create(loop.reactor(), address, options, *this);
    EXPECT_TRUE(made.ok()) << made.status().cause();
    return std::move(made).value();
  }
  Status open(RemoteStore& store) {
    std::optional<Status> status;
    store.open([&](const Result<Geometry>& geometry) { status = geometry.status(); });
    loop.until([&] { return status.has_value(); });
    return *status;
  }
  void on_up() override { ++ups; }
  void on_down(const Status&) override { ++downs; }
  void on_failed(const Status& reason) override { FAIL() << reason.cause(); }

  test::TempDir dir;
  test::Loop loop;
  transport::TlsOptions tls;
  std::unique_ptr<server::Server> server;
  std::uint16_t port = 0;
  int ups = 0, downs = 0;
};

TEST_F(RemoteTls, NeedsNoChecksumsAndSaysWhatCarriesIt) {
  auto store = make("localhost");
  ASSERT_TRUE(open(*store).ok());
  EXPECT_FALSE(store->checksummed());
  EXPECT_STREQ(store->transport(), "tls");
  EXPECT_FALSE(store->can_receive(256 << 10)) << "in user space there is no socket for others";
  test::StoreOps ops(loop, *store);
  ops.read(0, 1 << 20);
  EXPECT_GT(store->crypto_time(), 0ns);
}

TEST_F(RemoteTls, ServerOfAnotherNameIsRefused) {
  const Status status = open(*make("elsewhere.example"));
  EXPECT_EQ(status.code(), Code::kPermission);
  EXPECT_NE(status.cause().find("elsewhere.example"), std::string::npos) << status.cause();
  EXPECT_FALSE(status.hint().empty());
}

TEST_F(RemoteTls, ClientThatTheServerRefusesHearsWhy) {
  test::CertificateAuthority other("somebody else");
  other.issue(dir.path(), "client", {.cn = "mallory", .purpose = GNUTLS_KP_TLS_WWW_CLIENT});
  const Status status = open(*make("localhost"));
  EXPECT_EQ(status.code(), Code::kPermission) << status.cause();
  EXPECT_NE(status.cause().find("refused us"), std::string::npos) << status.cause();
}

TEST_F(RemoteTls, PlainClientOfATlsListenerIsTold) {
  const Status status = open(*make("", false));
  EXPECT_EQ(status.code(), Code::kFailed);
  EXPECT_NE(status.hint().find("rmems://"), std::string::npos) << status.hint();
}

TEST_F(RemoteTls, KeysAreRenewedAndNothingIsLost) {
  tls.records = 300;
  serve(tls);
  auto store = make("localhost");
  ASSERT_TRUE(open(*store).ok());
  std::optional<Status> claimed;
  store->claim({.writer = uuid_random()}, [&](const Status& status) { claimed = status; });
  ASSERT_TRUE(loop.until([&] { return claimed.has_value(); }));
  ASSERT_TRUE(claimed->ok());

  // Writes and reads, one after the other; what was under way when a connection went is
  // done once more, as store.hh says.
  const auto bytes = test::pattern(1 << 20, 9);
  std::vector<std::byte> seen(bytes.size());
  std::size_t at = 0;
  bool writing = true;
  constexpr std::size_t kStep = 64 << 10;
  std::function<void()> step;
  std::function<void(int)> next = [&](int err) {
    EXPECT_TRUE(err == 0 || err == EAGAIN) << err;
    if (err == 0) at += kStep;
    if (err == 0 && at == bytes.size()) {
      at = 0;
      if (!writing) {
        EXPECT_TRUE(seen == bytes);
        std::ranges::fill(seen, std::byte{0});
      }
      writing = !writing;
    }
    loop.reactor().post([&] { step(); });
  };
  step = [&] {
    if (store->counters().reconnects >= 3) return;
    if (store->state() != RemoteStore::State::kUp) {
      // on_up() goes on; here it is looked for.
      loop.reactor().post([&] { step(); });
      return;
    }
    const Done then = {[](void* ctx, const Outcome& outcome) {
                         (*static_cast<std::function<void(int)>*>(ctx))(outcome.err);
                       },
                       &next};
    if (writing)
      store->write(at, std::span(bytes).subspan(at, kStep), then);
    else
      store->read(at, std::span(seen).subspan(at, kStep), then);
  };
  step();
  EXPECT_TRUE(loop.until([&] { return store->counters().reconnects >= 3; }));
  EXPECT_EQ(downs, ups);
  loop.until([&] { return store->state() == RemoteStore::State::kUp; });
}

}  // namespace
}  // namespace rmem::store
