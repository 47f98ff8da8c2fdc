// SPDX-License-Identifier: MIT
#include "transport/connector.hh"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <fstream>
#include <optional>

#include "support/loop.hh"
#include "support/temp_dir.hh"
#include "transport/socket.hh"

namespace rmem::transport {
namespace {

class ConnectorTest : public testing::Test, protected Listener::Handler {
 protected:
  Status connect(const Address& address, bool local_only = true) {
    std::optional<Status> status;
    Connector connector(loop.reactor(), local_only,
                        [&](const auto& result) { status = result.status(); });
    connector.start(address);
    loop.until([&] { return status.has_value(); });
    return *status;
  }
  Status listen(const std::string& path) {
    auto made =
        SocketListener::listen(loop.reactor(), {.host = "", .port = 0, .path = path}, *this);
    if (!made) return made.status();
    for (auto& one : *made) listeners.push_back(std::move(one));
    return Status();
  }
  void on_accept(std::unique_ptr<Connection>) override { ++accepted; }

  test::TempDir dir;
  test::Loop loop;
  std::vector<std::unique_ptr<SocketListener>> listeners;
  int accepted = 0;
};

TEST_F(ConnectorTest, NobodyListeningIsUnreachable) {
  // A port that was just free.
  auto listening =
      SocketListener::listen(loop.reactor(), {.host = "127.0.0.1", .port = 0, .path = ""}, *this);
  const std::string text = (*listening)[0]->address().to_string();
  listening->clear();
  const auto port = static_cast<std::uint16_t>(std::stoi(text.substr(text.rfind(':') + 1)));
  const Status status = connect({.host = "127.0.0.1", .port = port, .path = ""});
  EXPECT_EQ(status.code(), Code::kUnreachable);
  EXPECT_NE(status.cause().find("127.0.0.1"), std::string::npos);
  EXPECT_FALSE(status.hint().empty());
}

TEST_F(ConnectorTest, MissingSocketIsUnreachable) {
  EXPECT_EQ(connect({.host = "", .port = 0, .path = dir / "none"}).code(), Code::kUnreachable);
}

TEST_F(ConnectorTest, LocalhostIsLocal) {
  const Status status = connect({.host = "localhost", .port = 1, .path = ""});
  EXPECT_EQ(status.code(), Code::kUnreachable) << status.cause();
}

TEST_F(ConnectorTest, AnotherHostIsRefusedWhenItHasToBeThisOne) {
  EXPECT_EQ(connect({.host = "192.0.2.1", .port = 7070, .path = ""}).code(), Code::kUsage);
}

TEST_F(ConnectorTest, MayBeDestroyedWhileANameIsLookedUp) {
  Connector connector(loop.reactor(), true, [](const auto&) { ADD_FAILURE(); });
  connector.start({.host = "name.invalid", .port = 7070, .path = ""});
}

TEST_F(ConnectorTest, StaleSocketIsReplaced) {
  ASSERT_TRUE(listen(dir / "socket").ok());
  // As after a kill -9: the file is there, nobody listens.
  ASSERT_EQ(::link((dir / "socket").c_str(), (dir / "stale").c_str()), 0);
  listeners.clear();
  ASSERT_EQ(::rename((dir / "stale").c_str(), (dir / "socket").c_str()), 0);
  EXPECT_TRUE(listen(dir / "socket").ok());
  EXPECT_TRUE(connect({.host = "", .port = 0, .path = dir / "socket"}).ok());
}

TEST_F(ConnectorTest, LiveSocketIsBusy) {
  ASSERT_TRUE(listen(dir / "socket").ok());
  EXPECT_EQ(listen(dir / "socket").code(), Code::kBusy);
  EXPECT_TRUE(connect({.host = "", .port = 0, .path = dir / "socket"}).ok());
}

TEST_F(ConnectorTest, FileThatIsNoSocketIsLeftAlone) {
  std::ofstream(dir / "file") << "precious";
  EXPECT_EQ(listen(dir / "file").code(), Code::kBusy);
  std::string text;
  std::ifstream(dir / "file") >> text;
  EXPECT_EQ(text, "precious");
}

TEST_F(ConnectorTest, PortInUseIsBusy) {
  auto first =
      SocketListener::listen(loop.reactor(), {.host = "127.0.0.1", .port = 0, .path = ""}, *this);
  const auto port = (*first)[0]->address().port();
  auto second = SocketListener::listen(loop.reactor(),
                                       {.host = "127.0.0.1", .port = port, .path = ""}, *this);
  EXPECT_EQ(second.status().code(), Code::kBusy);
}

}  // namespace
}  // namespace rmem::transport
