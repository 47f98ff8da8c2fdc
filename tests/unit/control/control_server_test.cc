// SPDX-License-Identifier: MIT
#include "control/server.hh"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cstdlib>
#include <cstring>
#include <thread>

namespace rmem::control {
namespace {

using nlohmann::json;

class ServerTest : public testing::Test {
 protected:
  void SetUp() override {
    char directory[] = "/tmp/rmem-control-XXXXXX";
    ASSERT_NE(::mkdtemp(directory), nullptr);
    path = std::string(directory) + "/sock";
    reactor = std::move(Reactor::create().value());
    auto socket = ControlSocket::listen(path);
    ASSERT_TRUE(socket.ok()) << socket.status().cause();
    server = std::make_unique<Server>(
        *reactor, std::move(*socket),
        [this](const Peer& peer, const json& request, Server::Reply reply) {
          ++requests;
          last_peer = peer;
          if (request.value("verb", "") == "hold") {
            held.push_back(std::move(reply));
          } else if (request.value("verb", "") == "fail") {
            reply(Server::error(Status(Code::kBusy, "in use", "wait")));
          } else {
            reply({{"ok", true}, {"echo", request.value("verb", "")}});
          }
        });
    ASSERT_TRUE(server->start().ok());
    loop = std::thread([this] { reactor->run(); });
  }
  void TearDown() override {
    on_loop([this] {
      held.clear();
      server.reset();
    });
    reactor->stop();
    loop.join();
    ::unlink((path + ".lock").c_str());
    ::rmdir(path.substr(0, path.rfind('/')).c_str());
  }
  template <class F>
  void on_loop(F f) {
    std::atomic<bool> done = false;
    reactor->post([&] {
      f();
      done = true;
    });
    while (!done) std::this_thread::yield();
  }

  UniqueFd connect() {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, path.c_str());
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    timeval limit{10, 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    return fd;
  }
  static void send(const UniqueFd& fd, const std::string& text) {
    ASSERT_EQ(::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }
  // One line; empty at the end of the stream.
  static std::string line(const UniqueFd& fd) {
    std::string out;
    char c;
    while (::recv(fd.get(), &c, 1, 0) == 1) {
      if (c == '\n') return out;
      out += c;
    }
    return {};
  }

  std::string path;
  std::unique_ptr<Reactor> reactor;
  std::unique_ptr<Server> server;
  std::thread loop;
  // Of the loop's thread.
  std::vector<Server::Reply> held;
  Peer last_peer;
  std::atomic<int> requests = 0;
};

TEST_F(ServerTest, AnswersWithSchemaAndId) {
  const auto fd = connect();
  send(fd, "{\"verb\":\"ping\",\"id\":17}\n");
  const json reply = json::parse(line(fd));
  EXPECT_EQ(reply, (json{{"schema", 1}, {"id", 17}, {"ok", true}, {"echo", "ping"}}));
  on_loop([this] {
    EXPECT_EQ(last_peer.uid, ::geteuid());
    EXPECT_EQ(last_peer.pid, ::getpid());
  });
}

TEST_F(ServerTest, ErrorsHaveTheFormOfTheContract) {
  const auto fd = connect();
  send(fd, "{\"verb\":\"fail\"}\n");
  const json reply = json::parse(line(fd));
  EXPECT_EQ(reply["ok"], false);
  EXPECT_EQ(reply["error"],
            (json{{"code", 6}, {"name", "busy"}, {"cause", "in use"}, {"hint", "wait"}}));
}

TEST_F(ServerTest, GarbageIsAnsweredAndEnded) {
  for (const char* text : {"hello\n", "[]\n", "7\n", "{\n", "\xff\xfe\n", "\"x\"\n"}) {
    const auto fd = connect();
    send(fd, text);
    const json reply = json::parse(line(fd), nullptr, false);
    ASSERT_TRUE(reply.is_object()) << text;
    EXPECT_EQ(reply["error"]["code"], 2);
    EXPECT_EQ(line(fd), "");
  }
  EXPECT_EQ(requests, 0);
}

// To look at it takes stack for each level.
TEST_F(ServerTest, DeeplyNestedLineIsRefused) {
  const auto fd = connect();
  send(fd, R"({"verb":"x","id":)" + std::string(32'000, '[') + std::string(32'000, ']') + "}\n");
  const json reply = json::parse(line(fd), nullptr, false);
  ASSERT_TRUE(reply.is_object());
  EXPECT_EQ(reply["error"]["code"], 2);
  EXPECT_EQ(requests, 0);
}

TEST_F(ServerTest, OversizeLineIsRefused) {
  const auto fd = connect();
  send(fd, std::string(Server::kMaxLine + 1, 'x'));
  EXPECT_EQ(json::parse(line(fd))["error"]["code"], 2);
  EXPECT_EQ(line(fd), "");
}

TEST_F(ServerTest, HalfALineIsNoRequest) {
  {
    const auto fd = connect();
    send(fd, "{\"verb\":\"ping\"}");
    ::shutdown(fd.get(), SHUT_WR);
    EXPECT_EQ(line(fd), "");
  }
  EXPECT_EQ(requests, 0);
}

TEST_F(ServerTest, LineInPieces) {
  const auto fd = connect();
  for (char c : std::string("{\"verb\":\"ping\"}\n")) send(fd, std::string(1, c));
  EXPECT_EQ(json::parse(line(fd))["echo"], "ping");
}

TEST_F(ServerTest, ReplyAfterTheClientHalfClosed) {
  const auto fd = connect();
  send(fd, "{\"verb\":\"ping\"}\n");
  ::shutdown(fd.get(), SHUT_WR);
  EXPECT_EQ(json::parse(line(fd))["echo"], "ping");
  EXPECT_EQ(line(fd), "");
}

TEST_F(ServerTest, ManyRequestsAtOnceAreAnsweredInOrder) {
  const auto fd = connect();
  std::string all;
  for (int i = 0; i < 2000; ++i) all += "{\"verb\":\"ping\",\"id\":" + std::to_string(i) + "}\n";
  std::thread sender([&] { send(fd, all); });
  for (int i = 0; i < 2000; ++i) {
    const json reply = json::parse(line(fd), nullptr, false);
    ASSERT_TRUE(reply.is_object()) << i;
    ASSERT_EQ(reply["id"], i);
  }
  sender.join();
}

TEST_F(ServerTest, WhatCameBeforeTheHalfCloseIsAnsweredInFull) {
  UniqueFd fd;
  // The server sees all of it at once.
  on_loop([&] {
    fd = connect();
    send(fd, "{\"verb\":\"a\"}\n{\"verb\":\"b\"}\n{\"verb\":\"c\"}\n");
    ::shutdown(fd.get(), SHUT_WR);
  });
  for (const char* verb : {"a", "b", "c"}) {
    const json reply = json::parse(line(fd), nullptr, false);
    ASSERT_TRUE(reply.is_object()) << verb;
    EXPECT_EQ(reply["echo"], verb);
  }
  EXPECT_EQ(line(fd), "");
}

TEST_F(ServerTest, SlowVerbHoldsUpOnlyItsOwnClient) {
  const auto slow = connect();
  send(slow, "{\"verb\":\"hold\"}\n{\"verb\":\"ping\"}\n");
  const auto quick = connect();
  send(quick, "{\"verb\":\"ping\"}\n");
  EXPECT_EQ(json::parse(line(quick))["echo"], "ping");
  for (std::size_t n = 0; n == 0; std::this_thread::yield()) on_loop([&] { n = held.size(); });
  on_loop([&] { held[0]({{"ok", true}, {"echo", "held"}}); });
  EXPECT_EQ(json::parse(line(slow))["echo"], "held");
  EXPECT_EQ(json::parse(line(slow))["echo"], "ping");
}

TEST_F(ServerTest, ClientThatLeftBeforeItsReply) {
  {
    const auto fd = connect();
    send(fd, "{\"verb\":\"hold\"}\n");
    for (std::size_t n = 0; n == 0; std::this_thread::yield()) on_loop([&] { n = held.size(); });
  }
  on_loop([&] { held[0]({{"ok", true}}); });
  on_loop([&] { held[0]({{"ok", true}}); });  // and twice
  const auto fd = connect();
  send(fd, "{\"verb\":\"ping\"}\n");
  EXPECT_EQ(json::parse(line(fd))["echo"], "ping");
}

TEST_F(ServerTest, MoreClientsThanAllowed) {
  std::vector<UniqueFd> fds;
  for (std::size_t i = 0; i < Server::kMaxClients; ++i) {
    fds.push_back(connect());
    send(fds.back(), "{\"verb\":\"ping\"}\n");
    EXPECT_EQ(json::parse(line(fds.back()))["ok"], true);
  }
  const auto extra = connect();
  EXPECT_EQ(json::parse(line(extra))["error"]["code"], 6);
  fds.clear();
  for (int tries = 0; tries < 100; ++tries) {
    const auto fd = connect();
    ::send(fd.get(), "{\"verb\":\"ping\"}\n", 16, MSG_NOSIGNAL);
    const json reply = json::parse(line(fd), nullptr, false);
    if (reply.is_object() && reply["ok"] == true) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  FAIL() << "no place came free";
}

TEST_F(ServerTest, StopSendsTheReplyThatIsOwed) {
  const auto fd = connect();
  send(fd, "{\"verb\":\"hold\"}\n");
  for (std::size_t n = 0; n == 0; std::this_thread::yield()) on_loop([&] { n = held.size(); });
  on_loop([&] { server->stop(); });
  on_loop([&] { held[0]({{"ok", true}, {"echo", "late"}}); });
  EXPECT_EQ(json::parse(line(fd))["echo"], "late");
  EXPECT_EQ(line(fd), "");
}

TEST_F(ServerTest, LiveSocketIsNotReplaced) {
  EXPECT_EQ(ControlSocket::listen(path).status().code(), Code::kBusy);
}

TEST(ControlSocket, StaleSocketIsReplacedAndAFileIsNot) {
  char directory[] = "/tmp/rmem-control-XXXXXX";
  ASSERT_NE(::mkdtemp(directory), nullptr);
  const std::string path = std::string(directory) + "/sock";
  {
    // As a daemon leaves it that was killed.
    const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, path.c_str());
    ASSERT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  {
    auto socket = ControlSocket::listen(path);
    ASSERT_TRUE(socket.ok()) << socket.status().cause();
    struct stat st;
    ASSERT_EQ(::stat(path.c_str(), &st), 0);
    EXPECT_TRUE((st.st_mode & 0777) == 0660 || (st.st_mode & 0777) == 0600);
  }
  EXPECT_NE(::access(path.c_str(), F_OK), 0);  // gone with its owner
  ::fclose(::fopen(path.c_str(), "w"));
  EXPECT_EQ(ControlSocket::listen(path).status().code(), Code::kFailed);
  EXPECT_EQ(ControlSocket::listen(std::string(200, 'x')).status().code(), Code::kUsage);
  ::unlink(path.c_str());
  ::unlink((path + ".lock").c_str());
  ::rmdir(directory);
}

}  // namespace
}  // namespace rmem::control
