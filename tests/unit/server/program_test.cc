// SPDX-License-Identifier: MIT
// The program rmem-server: exit codes, `ready', signals.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/unique_fd.hh"
#include "support/temp_dir.hh"
#include "transport/quic.hh"

extern char** environ;

namespace rmem {
namespace {

class ProgramTest : public testing::Test {
 protected:
  void TearDown() override {
    if (pid > 0) finish(SIGKILL);
  }

  // `passed`: given to it as a service manager passes sockets.
  void start(std::vector<std::string> arguments, int passed = -1) {
    arguments.insert(arguments.begin(), RMEM_SERVER_PROGRAM);
    if (passed >= 0)  // only the shell's own child knows its pid beforehand
      arguments.insert(arguments.begin(),
                       {"/bin/sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\""});
    std::vector<char*> argv;
    for (std::string& one : arguments) argv.push_back(one.data());
    argv.push_back(nullptr);
    int pipes[2];
    ASSERT_EQ(::pipe2(pipes, O_CLOEXEC), 0);
    out.reset(pipes[0]);
    const UniqueFd write_end(pipes[1]);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, write_end.get(), STDOUT_FILENO);
    ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, (dir / "stderr").c_str(),
                                       O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (passed >= 0) ::posix_spawn_file_actions_adddup2(&actions, passed, 3);
    ASSERT_EQ(::posix_spawn(&pid, argv[0], &actions, nullptr, argv.data(), environ), 0);
    ::posix_spawn_file_actions_destroy(&actions);
  }
  // Reads up to the end of a line, or of the stream.
  std::string line() {
    std::string text;
    char c;
    while (::read(out.get(), &c, 1) == 1 && c != '\n') text += c;
    return text;
  }
  // The exit code, or minus the signal that ended it.
  int finish(int signal = 0) {
    if (signal != 0) ::kill(pid, signal);
    int status = 0;
    ::waitpid(pid, &status, 0);
    pid = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  int run(std::vector<std::string> arguments) {
    start(std::move(arguments));
    return finish();
  }
  std::string errors() {
    std::ifstream file(dir / "stderr");
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void config(const std::string& text) { std::ofstream(dir / "config") << text; }
  std::vector<std::string> good(const std::string& store = "mem://1MiB") {
    return {"--listen",   "unix://" + (dir / "socket"), "--export", "x=" + store, "--state-dir",
            dir / "state"};
  }

  test::TempDir dir;
  pid_t pid = -1;
  UniqueFd out;
};

TEST_F(ProgramTest, SaysReadyAndEndsWellOnSigterm) {
  start(good("file://" + (dir / "file") + "?size=1MiB"));
  EXPECT_EQ(line(), "ready");
  EXPECT_EQ(finish(SIGTERM), 0) << errors();
  EXPECT_NE(::access((dir / "socket").c_str(), F_OK), 0);
}

TEST_F(ProgramTest, ReplacesWhatAKilledOneLeftBehind) {
  start(good("file://" + (dir / "file") + "?size=1MiB"));
  EXPECT_EQ(line(), "ready");
  EXPECT_EQ(finish(SIGKILL), -SIGKILL);
  start(good("file://" + (dir / "file")));
  EXPECT_EQ(line(), "ready") << errors();
  EXPECT_EQ(finish(SIGINT), 0);
}

TEST_F(ProgramTest, TellsTheServiceManager) {
  const UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  (dir / "notify").copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ::setenv("NOTIFY_SOCKET", address.sun_path, 1);
  start(good());
  ::unsetenv("NOTIFY_SOCKET");
  EXPECT_EQ(line(), "ready");
  char text[100] = {};
  EXPECT_GT(::recv(socket.get(), text, sizeof text - 1, 0), 0);
  EXPECT_STREQ(text, "READY=1");
  EXPECT_EQ(finish(SIGTERM), 0);
}

TEST_F(ProgramTest, KeepsTheWatchdogQuiet) {
  const UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  (dir / "notify").copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ::setenv("NOTIFY_SOCKET", address.sun_path, 1);
  ::setenv("WATCHDOG_USEC", "100000", 1);
  start(good());
  ::unsetenv("NOTIFY_SOCKET");
  ::unsetenv("WATCHDOG_USEC");
  EXPECT_EQ(line(), "ready");
  int kicks = 0;
  for (int i = 0; i < 4; ++i) {
    char text[100] = {};
    ASSERT_GT(::recv(socket.get(), text, sizeof text - 1, 0), 0);
    kicks += std::string_view(text) == "WATCHDOG=1";
  }
  EXPECT_EQ(kicks, 3);  // and READY=1
  EXPECT_EQ(finish(SIGTERM), 0);
}

// A socket at `path`, bound, of `type`.
UniqueFd bound_socket(const std::string& path, int type) {
  UniqueFd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  return fd;
}

TEST_F(ProgramTest, AcceptsAtASocketThatItIsPassed) {
  const UniqueFd passed = bound_socket(dir / "passed", SOCK_STREAM);
  ASSERT_EQ(::listen(passed.get(), 5), 0);
  start({"--export", "x=mem://1MiB", "--state-dir", dir / "state"}, passed.get());
  ASSERT_EQ(line(), "ready") << errors();
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  (dir / "passed").copy(address.sun_path, sizeof address.sun_path - 1);
  const UniqueFd client(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  // The server, not the backlog, hangs up on what is no frame.
  const std::string noise(200, 'x');
  ASSERT_EQ(::send(client.get(), noise.data(), noise.size(), MSG_NOSIGNAL), 200);
  char c;
  while (::recv(client.get(), &c, 1, 0) > 0) {
  }
  EXPECT_EQ(finish(SIGTERM), 0) << errors();
  // It belongs to whoever passed it.
  EXPECT_EQ(::access((dir / "passed").c_str(), F_OK), 0);
}

TEST_F(ProgramTest, RefusesAPassedSocketThatIsOfNoUse) {
  const std::vector<std::string> arguments = {"--export", "x=mem://1MiB", "--state-dir",
                                              dir / "state"};
  for (const int type : {SOCK_DGRAM, SOCK_STREAM}) {
    const std::string path = dir / std::to_string(type);
    const UniqueFd passed = bound_socket(path, type);  // and nobody listens
    start(arguments, passed.get());
    EXPECT_EQ(finish(), 2);
    EXPECT_NE(errors().find("socket unit"), std::string::npos) << errors();
  }
  const UniqueFd any(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::listen(any.get(), 5), 0);  // 0.0.0.0, a port of the kernel's choice
  start(arguments, any.get());
  EXPECT_EQ(finish(), 2);
  EXPECT_NE(errors().find("--insecure"), std::string::npos) << errors();
}

TEST_F(ProgramTest, APassedSocketOfUdpIsForQuic) {
  const UniqueFd any(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const sockaddr_in loopback = {
      .sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_zero = {}};
  ASSERT_EQ(::bind(any.get(), reinterpret_cast<const sockaddr*>(&loopback), sizeof loopback), 0);
  std::vector<std::string> arguments = {"--export", "x=mem://1MiB", "--state-dir", dir / "state"};
  start(arguments, any.get());
  EXPECT_EQ(finish(), 2);
  EXPECT_NE(errors().find("UDP"), std::string::npos) << errors();
  EXPECT_NE(errors().find("--tls-certificates"), std::string::npos) << errors();
  if (transport::quic_version() == nullptr) GTEST_SKIP() << "built without QUIC";
  const std::string keys = dir / "keys";
  std::ofstream(keys) << "alice:00112233445566778899aabbccddeeff\n";
  ASSERT_EQ(::chmod(keys.c_str(), 0600), 0);
  arguments.insert(arguments.end(), {"--tls-psk", keys});
  start(arguments, any.get());
  EXPECT_EQ(line(), "ready") << errors();
  EXPECT_NE(errors().find("listening at 127.0.0.1:"), std::string::npos) << errors();
  EXPECT_EQ(std::filesystem::file_size(dir / "state/quic-reset-key"), 32u);
  EXPECT_EQ(finish(SIGTERM), 0) << errors();
}

TEST_F(ProgramTest, HelpAndVersionAreNoMistakes) {
  EXPECT_EQ(run({"--help"}), 0);
  EXPECT_EQ(run({"--version"}), 0);
}

TEST_F(ProgramTest, MistakesOnTheCommandLineAreTwo) {
  const std::string listen = "unix://" + (dir / "socket");
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {},
           {"--listen", listen},
           {"--export", "x=mem://1MiB"},
           {"--listen", "127.0.0.1:7070", "--export", "x=mem://1MiB"},
           {"--listen", "tcp://0.0.0.0:7070", "--export", "x=mem://1MiB"},
           {"--listen", listen, "--export", "mem://1MiB"},
           {"--listen", listen, "--export", "x=mem://1MB"},
           {"--listen", listen, "--export", "x=mem://1MiB", "--export", "x=mem://1MiB"},
           {"--listen", listen, "--export", "x=mem://1MiB", "--unknown"}}) {
    EXPECT_EQ(run(arguments), 2) << testing::PrintToString(arguments);
    EXPECT_NE(errors().find("rmem-server: "), std::string::npos);
    EXPECT_EQ(line(), "");
  }
}

TEST_F(ProgramTest, ServesAsItsFileSaysAndTheCommandLineWins) {
  config("listen = [\"unix://" + (dir / "socket") + "\"]\nstate-dir = \"" + (dir / "state") +
         "\"\n[[export]]\nname = \"f\"\nstore = \"file://" + (dir / "file") + "?size=1MiB\"\n");
  start({"--config", dir / "config"});
  EXPECT_EQ(line(), "ready") << errors();
  EXPECT_EQ(finish(SIGTERM), 0);
  EXPECT_EQ(::access((dir / "file").c_str(), F_OK), 0);
  ASSERT_EQ(::unlink((dir / "file").c_str()), 0);
  start({"--config", dir / "config", "--listen", "unix://" + (dir / "other"), "--export",
         "x=mem://1MiB"});
  EXPECT_EQ(line(), "ready") << errors();
  EXPECT_EQ(::access((dir / "other").c_str(), F_OK), 0);
  EXPECT_NE(::access((dir / "socket").c_str(), F_OK), 0);
  EXPECT_NE(::access((dir / "file").c_str(), F_OK), 0);
  EXPECT_EQ(finish(SIGTERM), 0);
}

TEST_F(ProgramTest, MistakesInTheFileAreTwoWithTheirPlace) {
  config("[[export]]\nname = \"f\"\nstroe = \"mem://1\"\n");
  for (const std::vector<std::string>& more : {std::vector<std::string>{}, {"--check-config"}}) {
    std::vector<std::string> arguments = {"--config", dir / "config", "--listen",
                                          "unix://" + (dir / "socket")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    EXPECT_EQ(run(arguments), 2);
    EXPECT_NE(errors().find((dir / "config:3:1: `export.stroe' is no key of this file")),
              std::string::npos)
        << errors();
  }
  EXPECT_EQ(run({"--config", dir / "none", "--check-config"}), 2);
  EXPECT_NE(errors().find(dir / "none: No such file"), std::string::npos) << errors();
}

TEST_F(ProgramTest, CheckingAFileOpensNothing) {
  config("listen = [\"tcp://192.0.2.1\"]\n[[export]]\nname = \"f\"\nstore = \"file://" +
         (dir / "file") + "?size=1MiB\"\n");
  EXPECT_EQ(run({"--config", dir / "config", "--check-config"}), 0) << errors();
  EXPECT_EQ(errors(), "");
  EXPECT_NE(::access((dir / "file").c_str(), F_OK), 0);
}

TEST_F(ProgramTest, SighupReloadsTheFileOrSaysWhyNot) {
  const auto with = [&](const std::string& more) {
    config("listen = [\"unix://" + (dir / "socket") + "\"]\nstate-dir = \"" + (dir / "state") +
           "\"\n" + more);
  };
  const auto told = [&](const std::string& words) {
    for (int i = 0; i < 400; ++i) {
      if (errors().find(words) != std::string::npos) return true;
      ::usleep(50'000);
    }
    return false;
  };
  with("[[export]]\nname = \"a\"\nstore = \"mem://1MiB\"\n");
  start({"--config", dir / "config"});
  ASSERT_EQ(line(), "ready") << errors();
  with("[[export]]\nname = \"b\"\nstore = \"file://" + (dir / "file") + "?size=1MiB\"\n");
  ::kill(pid, SIGHUP);
  EXPECT_TRUE(told("reloaded " + (dir / "config") + ": 1 exports")) << errors();
  EXPECT_EQ(::access((dir / "file").c_str(), F_OK), 0);
  with("insecure = maybe\n");
  ::kill(pid, SIGHUP);
  EXPECT_TRUE(told("nothing is reloaded: " + (dir / "config") + ":3:12: ")) << errors();
  with("insecure = true\n[[export]]\nname = \"b\"\nstore = \"mem://1MiB\"\n");
  ::kill(pid, SIGHUP);
  EXPECT_TRUE(told("`insecure' changes only when the server is started again")) << errors();
  EXPECT_EQ(finish(SIGTERM), 0);
}

TEST_F(ProgramTest, MissingFileIsThree) {
  EXPECT_EQ(run(good("file://" + (dir / "none"))), 3);
  EXPECT_NE(errors().find("none"), std::string::npos);
}

TEST_F(ProgramTest, FileOfAnotherSizeIsEight) {
  std::ofstream(dir / "file") << "12345";
  EXPECT_EQ(run(good("file://" + (dir / "file") + "?size=1MiB")), 8);
}

TEST_F(ProgramTest, TellsStatsWhenAskedAndAtTheEnd) {
  start(good("stats+mem://1MiB"));
  EXPECT_EQ(line(), "ready");
  EXPECT_EQ(errors().find("stats: "), std::string::npos);
  ::kill(pid, SIGUSR1);
  for (int i = 0; i < 200 && errors().find("flush: 0 done") == std::string::npos; ++i)
    ::usleep(50'000);
  const std::string asked = errors();
  EXPECT_NE(asked.find("stats: mem://1MiB: read: 0 done, 0 failed"), std::string::npos) << asked;
  EXPECT_EQ(finish(SIGTERM), 0);
  // The server flushes at its end.
  EXPECT_NE(errors().find("flush: 1 done"), std::string::npos) << errors();
}

TEST_F(ProgramTest, DirectoryThatDoesNotFitIsThreeOrEight) {
  const std::string uri = "dir://" + (dir / "store");
  EXPECT_EQ(run(good(uri)), 3);
  EXPECT_NE(errors().find("?size="), std::string::npos);
  start(good(uri + "?size=1MiB"));
  EXPECT_EQ(line(), "ready");
  EXPECT_EQ(finish(SIGTERM), 0) << errors();
  EXPECT_EQ(run(good(uri + "?size=2MiB")), 8);
  std::ofstream(dir / "store/manifest") << "x";
  EXPECT_EQ(run(good(uri)), 8);
  EXPECT_NE(errors().find("manifest"), std::string::npos);
}

TEST_F(ProgramTest, DirectoryOfAnotherServerIsSix) {
  const std::string uri = "dir://" + (dir / "store");
  start(good(uri + "?size=1MiB"));
  ASSERT_EQ(line(), "ready");
  const pid_t first = std::exchange(pid, -1);
  UniqueFd first_out = std::move(out);
  for (const char* how : {"", ",ro"}) {
    EXPECT_EQ(run({"--listen", "unix://" + (dir / "other"), "--export", "x=" + uri + how,
                   "--state-dir", dir / "other-state"}),
              6);
    EXPECT_NE(errors().find("uses this directory"), std::string::npos);
  }
  pid = first;
  EXPECT_EQ(finish(SIGKILL), -SIGKILL);
  // Its lock died with it.
  start(good(uri));
  EXPECT_EQ(line(), "ready") << errors();
  EXPECT_EQ(finish(SIGTERM), 0);
}

TEST_F(ProgramTest, LiveSocketAndStateDirectoryInUseAreSix) {
  start(good("file://" + (dir / "file") + "?size=1MiB"));
  ASSERT_EQ(line(), "ready");
  const pid_t first = std::exchange(pid, -1);
  UniqueFd first_out = std::move(out);
  EXPECT_EQ(run(good("mem://1MiB")), 6);
  EXPECT_EQ(run({"--listen", "unix://" + (dir / "other"), "--export", "x=file://" + (dir / "file"),
                 "--state-dir", dir / "state"}),
            6);
  EXPECT_NE(errors().find("--state-dir"), std::string::npos);
  pid = first;
  EXPECT_EQ(finish(SIGTERM), 0);
}

}  // namespace
}  // namespace rmem
