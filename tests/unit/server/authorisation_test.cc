// SPDX-License-Identifier: MIT
// The server and who may use what, while that changes.
#include <gtest/gtest.h>

#include <fstream>

#include "server/server.hh"
#include "support/loop.hh"
#include "support/store_ops.hh"
#include "support/temp_dir.hh"
#include "support/wire_client.hh"

namespace rmem::server {
namespace {

using namespace std::chrono_literals;
using test::pattern;
using test::WireClient;
using wire::Type;

// A connection whose peer has proved to be somebody.
class Known final : public transport::Connection {
 public:
  Known(std::unique_ptr<transport::Connection> below, std::vector<std::string> identities,
        std::string peer)
      : below_(std::move(below)), identities_(std::move(identities)), peer_(std::move(peer)) {}
  void attach(Handler& handler) override { below_->attach(handler); }
  void watch(bool readable, bool writable) override { below_->watch(readable, writable); }
  transport::IoResult receive(std::span<const iovec> buffers) override {
    return below_->receive(buffers);
  }
  transport::IoResult send(std::span<const iovec> buffers, bool more) override {
    return below_->send(buffers, more);
  }
  bool intact() const override { return true; }
  bool local() const override { return false; }
  const char* kind() const override { return "known"; }
  const std::string& peer() const override { return peer_; }
  const std::vector<std::string>& identities() const override { return identities_; }

 private:
  std::unique_ptr<transport::Connection> below_;
  std::vector<std::string> identities_;
  std::string peer_;
};

class AuthorisationTest : public testing::Test, private transport::Listener::Handler {
 protected:
  void SetUp() override {
    options.state_dir = dir / "state";
    options.session.linger = 30ms;
    add("open", "mem://1MiB");
    add("alices", "mem://1MiB", AllowList{{"cn:alice", Access::kWrite}, {"cn:bob", Access::kRead}});
    server = std::move(Server::create(loop.reactor(), options)).value();
    transport::Address at;
    at.path = dir / "socket";
    auto listening = transport::SocketListener::listen(loop.reactor(), at, *this);
    listener = std::move(std::move(listening).value()[0]);
  }
  void on_accept(std::unique_ptr<transport::Connection> connection) override {
    server->adopt(std::make_unique<Known>(std::move(connection), identities, peer));
  }

  void add(const std::string& name, const std::string& store,
           std::optional<AllowList> allow = std::nullopt) {
    ExportSpec spec = *ExportSpec::parse(name + "=" + store);
    spec.allow = std::move(allow);
    options.exports.push_back(std::move(spec));
  }
  ExportSpec& spec(const std::string& name) {
    return *std::find_if(options.exports.begin(), options.exports.end(),
                         [&](const ExportSpec& one) { return one.name == name; });
  }
  void drop(const std::string& name) {
    std::erase_if(options.exports, [&](const ExportSpec& one) { return one.name == name; });
  }
  void reload() {
    const Status status = server->reload(options);
    EXPECT_TRUE(status.ok()) << status.cause();
  }

  std::unique_ptr<WireClient> connect(std::vector<std::string> as = {}) {
    identities = std::move(as);
    auto client = std::make_unique<WireClient>(loop, dir / "socket");
    EXPECT_EQ(client->hello().header.error, 0u);
    return client;
  }
  std::unique_ptr<WireClient> opened(const std::string& name, std::vector<std::string> as = {},
                                     std::uint16_t flags = 0) {
    auto client = connect(std::move(as));
    EXPECT_EQ(client->open(name, flags).header.error, 0u);
    return client;
  }
  std::uint32_t open(const std::string& name, std::vector<std::string> as = {},
                     std::uint16_t flags = 0) {
    return connect(std::move(as))->open(name, flags).header.error;
  }
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
  std::unique_ptr<transport::SocketListener> listener;
  std::vector<std::string> identities;  // of whoever connects next
  std::string peer = "192.0.2.1:4711";
  const Uuid me = uuid_random();
};

// --- who may what ------------------------------------------------------------------

TEST_F(AuthorisationTest, AListedWriterWrites) {
  const auto alice = opened("alices", {"cn:alice", "dns:host.example"});
  EXPECT_EQ(alice->claim(me).header.error, 0u);
  EXPECT_EQ(alice->write(0, pattern(10, 1)).header.error, 0u);
}

TEST_F(AuthorisationTest, AListedReaderReads) {
  EXPECT_EQ(open("alices", {"cn:bob"}), wire::error::kReadOnly);
  const auto bob = opened("alices", {"cn:bob"}, wire::flag::kReadOnly);
  EXPECT_EQ(bob->read(0, 10).header.error, 0u);
  EXPECT_EQ(bob->claim(me).header.error, wire::error::kReadOnly);
}

TEST_F(AuthorisationTest, WhoIsNotListedCannotTellWhatThereIs) {
  const auto mallory = connect({"cn:mallory"});
  const auto there = mallory->open("alices");
  const auto absent = mallory->open("nothing");
  EXPECT_EQ(there.header.error, wire::error::kAccess);
  EXPECT_EQ(absent.header.error, wire::error::kAccess);
  EXPECT_EQ(there.text(), "there is no export `alices', or it is not for this peer (cn:mallory)");
  EXPECT_EQ(absent.text(), "there is no export `nothing', or it is not for this peer (cn:mallory)");
  EXPECT_EQ(mallory->open("alices", wire::flag::kReadOnly).header.error, wire::error::kAccess);
  // Nobody has said that everybody may have it.
  EXPECT_EQ(mallory->open("open").header.error, wire::error::kAccess);
}

TEST_F(AuthorisationTest, PlainConnectionsGetWhatHasNoList) {
  EXPECT_EQ(open("open"), 0u);
  EXPECT_EQ(open("alices"), wire::error::kAccess);
  EXPECT_EQ(open("nothing"), wire::error::kAccess);
  drop("alices");
  reload();
  EXPECT_EQ(open("nothing"), wire::error::kNoEntry);
}

TEST_F(AuthorisationTest, AnEmptyListIsForNobody) {
  spec("alices").allow = AllowList{};
  reload();
  EXPECT_EQ(open("alices"), wire::error::kAccess);
  EXPECT_EQ(open("alices", {"cn:alice"}), wire::error::kAccess);
}

TEST_F(AuthorisationTest, AReadOnlyExportIsSoForWriters) {
  spec("alices").read_only = true;
  reload();
  const auto alice = connect({"cn:alice"});
  const auto refused = alice->open("alices");
  EXPECT_EQ(refused.header.error, wire::error::kReadOnly);
  EXPECT_EQ(refused.text(), "export `alices' is read-only");
}

TEST_F(AuthorisationTest, RefusalsAreLoggedOnceWithPeerIdentityAndExport) {
  testing::internal::CaptureStderr();
  for (int i = 0; i < 3; ++i) {
    peer = "192.0.2.1:" + std::to_string(i);
    EXPECT_EQ(open("alices", {"cn:mallory"}), wire::error::kAccess);
  }
  const std::string said = testing::internal::GetCapturedStderr();
  const auto at = said.find("access: 192.0.2.1:0");
  ASSERT_NE(at, std::string::npos) << said;
  EXPECT_NE(said.find("refused: `alices' for writing to cn:mallory"), std::string::npos) << said;
  EXPECT_EQ(said.find("access: ", at + 10), std::string::npos) << said;
}

// --- while clients are there -----------------------------------------------------------

TEST_F(AuthorisationTest, NewExportsAppear) {
  EXPECT_EQ(open("new", {"cn:alice"}), wire::error::kAccess);
  add("new", "file://" + (dir / "file") + "?size=1MiB", AllowList{{"cn:alice", Access::kWrite}});
  reload();
  EXPECT_EQ(open("new", {"cn:alice"}), 0u);
}

TEST_F(AuthorisationTest, WhatStaysTheSameIsNotNoticed) {
  const auto alice = opened("alices", {"cn:alice"});
  EXPECT_EQ(alice->claim(me).header.error, 0u);
  const auto bytes = pattern(100, 1);
  EXPECT_EQ(alice->write(0, bytes).header.error, 0u);
  add("new", "mem://1MiB");
  reload();
  EXPECT_EQ(alice->write(0, bytes).header.error, 0u);
  EXPECT_EQ(opened("alices", {"cn:bob"}, wire::flag::kReadOnly)->read(0, 100).payload, bytes);
}

TEST_F(AuthorisationTest, ARemovedExportStaysWithThoseWhoHaveIt) {
  add("file", "file://" + (dir / "file") + "?size=1MiB");
  reload();
  const auto client = opened("file");
  EXPECT_EQ(client->claim(me).header.error, 0u);
  drop("file");
  reload();
  EXPECT_EQ(open("file"), wire::error::kAccess);
  EXPECT_EQ(client->write(0, pattern(100, 1)).header.error, 0u);
  EXPECT_EQ(client->simple(Type::kFlush).header.error, 0u);
  EXPECT_EQ(server->exports().stores().size(), 3u);
  client->disconnect();
  loop.until([&] { return server->exports().stores().size() == 2; });
}

TEST_F(AuthorisationTest, AStoreGoesWithItsLastHandleNotWithTheConnection) {
  add("file", "file://" + (dir / "file") + "?size=1MiB");
  reload();
  const auto client = opened("file");
  drop("file");
  reload();
  EXPECT_EQ(client->simple(Type::kClose).header.error, 0u);
  reload();
  EXPECT_EQ(server->exports().stores().size(), 2u);
}

TEST_F(AuthorisationTest, ARemovedExportThatComesBackIsTheSameStore) {
  const std::string store = "dir://" + (dir / "store") + "?size=1MiB";
  add("dir", store);
  reload();
  const auto client = opened("dir");
  EXPECT_EQ(client->claim(me).header.error, 0u);
  EXPECT_EQ(client->write(0, pattern(100, 1)).header.error, 0u);
  drop("dir");
  reload();
  add("dir", store);
  reload();
  const auto other = opened("dir");
  EXPECT_EQ(other->read(0, 100).payload, pattern(100, 1));
  EXPECT_EQ(other->claim(uuid_random()).header.error, wire::error::kBusy);
}

TEST_F(AuthorisationTest, AStoreThatIsOpenedAgainHasAnotherEpoch) {
  const std::string store = "dir://" + (dir / "store") + "?size=1MiB";
  const auto epoch = [&] {
    const auto client = connect();
    const std::uint64_t is = client->open("dir").header.epoch;
    client->disconnect();
    loop.until([&] { return server->sessions() == 0; });
    return is;
  };
  add("dir", store);
  reload();
  const std::uint64_t before = epoch();
  drop("dir");
  reload();
  EXPECT_EQ(server->exports().stores().size(), 2u);
  add("dir", store);
  reload();
  EXPECT_NE(epoch(), before);
}

TEST_F(AuthorisationTest, AReadOnlyExportBecomesWritable) {
  std::ofstream(dir / "file") << std::string(4096, 'x');
  add("file", "file://" + (dir / "file"));
  spec("file").read_only = true;
  reload();
  const auto reader = opened("file", {}, wire::flag::kReadOnly);
  spec("file").read_only = false;
  reload();
  const auto writer = opened("file");
  EXPECT_EQ(writer->claim(me).header.error, 0u);
  EXPECT_EQ(writer->write(0, pattern(10, 1)).header.error, 0u);
  EXPECT_EQ(reader->read(0, 10).payload, pattern(10, 1));
}

TEST_F(AuthorisationTest, WhatCannotBeOpenedChangesNothing) {
  const auto alice = opened("alices", {"cn:alice"});
  drop("alices");
  add("good", "file://" + (dir / "good") + "?size=1MiB");
  add("bad", "file://" + (dir / "none"));
  const Status status = server->reload(options);
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_NE(status.cause().find("export `bad'"), std::string::npos) << status.cause();
  EXPECT_EQ(open("good"), wire::error::kAccess);
  EXPECT_EQ(open("alices", {"cn:alice"}), 0u);
  EXPECT_EQ(alice->read(0, 1).header.error, 0u);
  EXPECT_EQ(server->exports().stores().size(), 2u);
}

TEST_F(AuthorisationTest, WhoLosesARightLosesTheConnection) {
  const auto alice = opened("alices", {"cn:alice"});
  const auto bob = opened("alices", {"cn:bob"}, wire::flag::kReadOnly);
  const auto plain = opened("open");
  spec("alices").allow = AllowList{{"cn:alice", Access::kRead}, {"cn:bob", Access::kRead}};
  reload();
  expect_refused(*alice, wire::error::kAccess, "the right to `alices' was taken from cn:alice");
  EXPECT_EQ(bob->read(0, 10).header.error, 0u);
  spec("alices").allow = AllowList{{"cn:alice", Access::kRead}};
  reload();
  expect_refused(*bob, wire::error::kAccess, "was taken from cn:bob");
  EXPECT_EQ(plain->read(0, 10).header.error, 0u);
  EXPECT_EQ(open("alices", {"cn:alice"}, wire::flag::kReadOnly), 0u);
}

TEST_F(AuthorisationTest, AWriteUnderWayIsAnsweredBeforeTheRightIsTaken) {
  const auto alice = opened("alices", {"cn:alice"});
  EXPECT_EQ(alice->claim(me).header.error, 0u);
  const auto number = alice->send_write(0, pattern(10, 1));
  opened("open");  // by then the server has read it
  spec("alices").allow = AllowList{};
  reload();
  EXPECT_EQ(alice->reply(number).header.type, Type::kWrite);
  expect_refused(*alice, wire::error::kAccess, "taken");
}

// --- limits --------------------------------------------------------------------------

TEST_F(AuthorisationTest, ConnectionsOfOneAddressAreLimited) {
  options.limits.per_host = 2;
  reload();
  const auto one = opened("open"), two = connect();
  WireClient three(loop, dir / "socket");
  expect_refused(three, wire::error::kBusy, "of one address");
  peer = "192.0.2.2:1";
  EXPECT_EQ(open("open"), 0u);
  peer = "192.0.2.1:1";
  one->disconnect();
  loop.until([&] { return server->sessions() == 1; });
  EXPECT_EQ(open("open"), 0u);
}

TEST_F(AuthorisationTest, ConnectionsThatOpenNothingAreLimited) {
  options.limits.unopened_per_host = 1;
  reload();
  const auto one = connect();
  WireClient two(loop, dir / "socket");
  expect_refused(two, wire::error::kBusy, "have opened nothing");
  EXPECT_EQ(one->open("open").header.error, 0u);
  EXPECT_EQ(open("open"), 0u);
}

TEST_F(AuthorisationTest, RatesHoldForAllSessionsTogether) {
  spec("open").read_rate = 1 << 20;
  reload();
  const auto one = opened("open"), two = opened("open");
  wire::Header header;
  header.type = Type::kRead;
  header.length = 64 << 10;
  const auto begun = Reactor::Clock::now();
  std::uint64_t last[2] = {0, 0};
  for (int i = 0; i < 4; ++i) {
    header.handle = one->handle;
    last[0] = one->send(header);
    header.handle = two->handle;
    last[1] = two->send(header);
  }
  EXPECT_EQ(one->reply(last[0]).header.error, 0u);
  EXPECT_EQ(two->reply(last[1]).header.error, 0u);
  // 512 KiB, of which the last need not be paid for, nor what a tenth of a second had saved.
  EXPECT_GE(Reactor::Clock::now() - begun, 300ms);
}

TEST_F(AuthorisationTest, WritesHaveARateOfTheirOwnAndKeepTheirOrder) {
  spec("open").write_rate = 64 << 10;
  reload();
  const auto client = opened("open");
  EXPECT_EQ(client->claim(me).header.error, 0u);
  std::uint64_t last = 0;
  client->send_write(0, pattern(8192, 1));  // more than is saved up
  for (std::uint8_t i = 1; i <= 3; ++i) last = client->send_write(0, pattern(1000, i));
  // Behind them: nothing overtakes on one connection.
  wire::Header header;
  header.type = Type::kRead;
  header.handle = client->handle;
  header.length = 1000;
  const auto read = client->send(header);
  EXPECT_EQ(client->reply(last).header.error, 0u);
  EXPECT_EQ(client->reply(read).payload, pattern(1000, 3));
  // Who only reads does not wait.
  client->send_write(0, pattern(1 << 20, 1));
  client->send_write(0, pattern(1000, 2));
  const auto reader = opened("open", {}, wire::flag::kReadOnly);
  EXPECT_EQ(reader->read(0, 1 << 20).header.error, 0u);
}

TEST_F(AuthorisationTest, WhoWaitsForARateMayBeCutOffOrDrained) {
  spec("open").write_rate = 64 << 10;
  reload();
  const auto waits = [&](const Uuid& writer) {
    auto client = opened("open");
    EXPECT_EQ(client->claim(writer, 1, true).header.error, 0u);
    EXPECT_EQ(client->write(0, pattern(512 << 10, 1)).header.error, 0u);
    client->send_write(0, pattern(1000, 2));
    const auto probe = opened("open", {}, wire::flag::kReadOnly);
    EXPECT_EQ(probe->read(0, 1).header.error, 0u);  // by then the server has read it
    return client;
  };
  waits(me)->disconnect();
  loop.until([&] { return server->sessions() == 0; });
  spec("open").write_rate = 0;
  reload();
  spec("open").write_rate = 64 << 10;
  reload();
  const auto client = waits(uuid_random());
  bool over = false;
  server->stop(10s, [&](const Status& status) { over = status.ok(); });
  loop.until([&] { return over; });
  EXPECT_EQ(client->frames.size(), 1u);  // it has been answered
}

TEST_F(AuthorisationTest, AStoreThatDoesNotFlushIsNotWaitedForForEver) {
  add("slow", "delay+mem://1MiB?delay.flush=1h");
  reload();
  Status how;
  bool over = false;
  server->stop(50ms, [&](const Status& status) {
    how = status;
    over = true;
  });
  loop.until([&] { return over; });
  EXPECT_EQ(how.code(), Code::kTimeout);
}

}  // namespace
}  // namespace rmem::server
