// SPDX-License-Identifier: MIT
// rmemctl as a script sees it: exit codes, stdout, stderr.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <thread>

#include "bind.hh"
#include "command.hh"
#include "control/options.hh"
#include "format.hh"
#include "kchan/errors.hh"

namespace rmem::ctl {
namespace {

using nlohmann::json;

kchan::RegionInfo region(const std::string& name) {
  kchan::RegionInfo r;
  r.id = 3;
  r.name = name;
  r.size = 64 << 20;
  r.chunk = 256 << 10;
  r.mode = 0640;
  r.uid = 1000;
  r.gid = 100;
  r.fault_timeout_ms = 30000;
  r.sync_timeout_ms = 100;
  r.source = "rmem://host:7070/" + name;
  r.instance = "default";
  r.state = RMEM_STATE_ACTIVE;
  r.daemon_pid = 4711;
  r.resident_bytes = 3 << 20;
  r.dirty_bytes = 8192;
  r.writeback_bytes = 4096;
  r.fetched_bytes = (3 << 20) + (512 << 10);
  r.pushed_bytes = 1000;
  r.faults_demand = 14;
  r.faults_resident = 100;
  r.faults_write_protect = 5;
  r.waiting = 1;
  r.errors = 2;
  r.resident_limit = 1u << 30;
  r.module_bytes = 5632;
  return r;
}

class FakeRegions final : public Regions {
 public:
  explicit FakeRegions(std::vector<kchan::RegionInfo> all) : all_(std::move(all)) {}
  Result<std::vector<kchan::RegionInfo>> list() override { return all_; }
  Result<kchan::RegionInfo> get(const std::string& name) override {
    for (const auto& r : all_) {
      if (r.name == name) return r;
    }
    return kchan::module_error(ENOENT, "region " + name);
  }
  Result<std::uint64_t> unmake_by_force(std::uint32_t) override {
    ++forced;
    return all_.front().dirty_bytes + all_.front().writeback_bytes;
  }
  Status abort(std::uint32_t) override {
    ++aborted;
    return Status();
  }

  static inline int forced = 0, aborted = 0;  // since the test began

 private:
  std::vector<kchan::RegionInfo> all_;
};

// A daemon that gives one answer to everything. No answer: it is silent.
class FakeDaemon {
 public:
  FakeDaemon(const std::string& path, std::string answer) : answer_(std::move(answer)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, path.c_str());
    listener_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(::listen(listener_.get(), 5), 0);
    thread_ = std::thread([this] { serve(); });
  }
  ~FakeDaemon() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
  }
  const json& request() const { return request_; }  // after run() has returned

 private:
  void serve() {
    std::vector<UniqueFd> clients;
    for (;;) {
      clients.emplace_back(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!clients.back()) return;
      std::string line;
      char c;
      while (::recv(clients.back().get(), &c, 1, 0) == 1 && c != '\n') line += c;
      request_ = json::parse(line, nullptr, false);
      if (answer_ == "silence") continue;
      if (answer_ != "hang up") {
        EXPECT_GE(::send(clients.back().get(), answer_.data(), answer_.size(), MSG_NOSIGNAL), 0);
      }
      clients.back().reset();
    }
  }

  std::string answer_;
  json request_;
  UniqueFd listener_;
  std::thread thread_;
};

class Ctl : public testing::Test {
 protected:
  void SetUp() override {
    char directory[] = "/tmp/rmem-ctl-XXXXXX";
    ASSERT_NE(::mkdtemp(directory), nullptr);
    directory_ = directory;
    socket = directory_ + "/sock";
    ::unsetenv("RMEM_SOCKET");
    FakeRegions::forced = FakeRegions::aborted = 0;
  }
  void TearDown() override {
    daemon.reset();
    ::unlink(socket.c_str());
    ::rmdir(directory_.c_str());
  }
  void answer(const std::string& text) {
    daemon.reset();
    ::unlink(socket.c_str());
    daemon = std::make_unique<FakeDaemon>(socket, text);
  }
  int run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"rmemctl", "--socket", socket});
    std::vector<const char*> argv;
    for (const auto& a : arguments) argv.push_back(a.c_str());
    Context context;
    context.regions = [this]() -> Result<std::unique_ptr<Regions>> {
      if (!module) return kchan::module_absent("test");
      return std::unique_ptr<Regions>(new FakeRegions(regions));
    };
    std::ostringstream stream;
    context.out = &stream;
    testing::internal::CaptureStderr();
    testing::internal::CaptureStdout();
    const int code = ctl::run(static_cast<int>(argv.size()), argv.data(), context);
    out = stream.str() + testing::internal::GetCapturedStdout();
    err = testing::internal::GetCapturedStderr();
    return code;
  }

  std::string directory_;
  std::string socket;
  std::unique_ptr<FakeDaemon> daemon;
  std::vector<kchan::RegionInfo> regions;
  bool module = true;
  std::string out;
  std::string err;
};

TEST_F(Ctl, UsageErrors) {
  const std::vector<std::vector<std::string>> bad = {
      {},
      {"dance"},
      {"attach"},
      {"attach", "a"},
      {"attach", "a/b", "rmem://h/x"},
      {"attach", "-a", "rmem://h/x"},
      {"attach", "a", "rmem://h/x", "--chunk", "5KiB"},
      {"attach", "a", "rmem://h/x", "--chunk", "many"},
      {"attach", "a", "rmem://h/x", "--chunk", "2KiB"},
      {"attach", "a", "rmem://h/x", "--chunk", "4MiB"},
      {"attach", "a", "rmem://h/x", "--chunk", "8GiB"},
      {"attach", "a", "rmem://h/x", "--mode", "rw"},
      {"attach", "a", "rmem://h/x", "--mode", "4755"},
      {"attach", "a", "rmem://h/x", "--mode", "0688"},
      {"attach", "a", "rmem://h/x", "--on-loss", "panic"},
      {"attach", "a", "rmem://h/x", "--fault-timeout", "30"},
      {"attach", "a", "rmem://h/x", "--fault-timeout", "0"},
      {"attach", "a", "rmem://h/x", "--sync-timeout", "-1s"},
      {"attach", "a", "rmem://h/x", "--owner", "no-such-user"},
      {"attach", "a", "rmem://h/x", "--owner", "root:no-such-group"},
      {"attach", "a", "rmem://h/x", "--bind", "/"},
      {"attach", "a", "rmem://h/x", "--bind", "/no/such/directory/file"},
      {"attach", "a", "rmem://h/x", "--resident-limit", "4KiB"},
      {"detach"},
      {"detach", "a b"},
      {"detach", "a", "--gently"},
      {"abort"},
      {"salvage", "a"},
      {"status", "a", "b"},
      {"sync"},
      {"drop"},
      {"pull"},
      {"attach", "a", "data.img"},
      {"attach", "a", "rmem://h:99999/x"},
  };
  for (const auto& arguments : bad) {
    std::string all;
    for (const auto& a : arguments) all += a + " ";
    EXPECT_EQ(run(arguments), 2) << all;
    EXPECT_TRUE(out.empty()) << all;
    EXPECT_NE(err.find("rmemctl: "), std::string::npos) << all;
  }
}

TEST_F(Ctl, UnknownCommandIsNamed) {
  EXPECT_EQ(run({"frobnicate"}), 2);
  EXPECT_NE(err.find("no command `frobnicate'"), std::string::npos) << err;
}

TEST_F(Ctl, ModuleAbsentIsNotFound) {
  module = false;
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{"status"},
                                                    {"sync", "a"},
                                                    {"detach", "a"},
                                                    {"drop", "a"},
                                                    {"attach", "a", "rmem://h/x"}}) {
    EXPECT_EQ(run(arguments), 3) << arguments[0];
    EXPECT_NE(err.find("modprobe rmem"), std::string::npos);
  }
}

TEST_F(Ctl, DaemonAbsentIsUnreachable) {
  regions = {region("a")};
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{"sync", "a"},
                                                    {"detach", "a"},
                                                    {"drop", "a"},
                                                    {"attach", "b", "rmem://h/x"}}) {
    EXPECT_EQ(run(arguments), 7) << arguments[0];
    EXPECT_NE(err.find(socket), std::string::npos);
  }
  EXPECT_EQ(run({"status"}), 0);  // the kernel knows
}

TEST_F(Ctl, UnknownRegionIsNotFound) {
  for (const char* verb : {"sync", "detach", "drop", "status"}) EXPECT_EQ(run({verb, "a"}), 3);
}

TEST_F(Ctl, SilentDaemonIsATimeout) {
  regions = {region("a")};
  regions[0].sync_timeout_ms = 0;
  answer("silence");
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(run({"sync", "a"}), 5);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
  EXPECT_NE(err.find("did not answer within 5s"), std::string::npos) << err;
}

TEST_F(Ctl, DaemonThatDiesIsUnreachable) {
  regions = {region("a")};
  answer("hang up");
  EXPECT_EQ(run({"sync", "a"}), 7);
}

TEST_F(Ctl, ReplyThatMakesNoSenseIsAFailure) {
  regions = {region("a")};
  for (const char* text :
       {"\n", "null\n", "{}\n", "{\"ok\":1}\n", "{\"ok\":false}\n",
        "{\"ok\":false,\"error\":{\"code\":0}}\n", "{\"ok\":false,\"error\":{\"code\":\"x\"}}\n",
        "{\"ok\":false,\"error\":{\"code\":99}}\n", "{\"ok\":false,\"error\":[]}\n"}) {
    answer(text);
    EXPECT_EQ(run({"sync", "a"}), 1) << text;
  }
}

TEST_F(Ctl, ErrorsOfTheDaemonKeepCodeCauseAndHint) {
  regions = {region("a")};
  for (int code = 1; code <= 9; ++code) {
    answer(
        json{{"ok", false}, {"error", {{"code", code}, {"cause", "the cause"}, {"hint", "next"}}}}
            .dump() +
        "\n");
    EXPECT_EQ(run({"sync", "a"}), code);
    EXPECT_EQ(err, "rmemctl: the cause\nrmemctl: next: next\n");
  }
}

TEST_F(Ctl, AttachSendsEveryOption) {
  answer("{\"ok\":true,\"made\":true}\n");
  ASSERT_EQ(run({"attach",
                 "data",
                 "rmem://host:7070/x",
                 "--chunk",
                 "1MiB",
                 "--read-only",
                 "--owner",
                 "0:0",
                 "--mode",
                 "0640",
                 "--on-loss",
                 "error",
                 "--fault-timeout",
                 "2s",
                 "--sync-timeout",
                 "3s",
                 "--push-interval",
                 "250ms",
                 "--pull",
                 "all",
                 "--resident-limit",
                 "1GiB",
                 "--dirty-limit",
                 "64MiB",
                 "--push-threshold",
                 "2MiB",
                 "--pull-rate",
                 "20MiB",
                 "--push-rate",
                 "1000",
                 "--take-over",
                 "--insecure"}),
            0)
      << err;
  const json expected = {{"verb", "attach"},
                         {"name", "data"},
                         {"source", "rmem://host:7070/x"},
                         {"chunk", 1 << 20},
                         {"read_only", true},
                         {"uid", 0},
                         {"gid", 0},
                         {"mode", 0640},
                         {"bind", ""},
                         {"bind_created", false},
                         {"on_loss", "error"},
                         {"resident_limit", 1 << 30},
                         {"dirty_limit", 64 << 20},
                         {"push_threshold", 2 << 20},
                         {"fault_timeout_ms", 2000},
                         {"sync_timeout_ms", 3000},
                         {"push_interval_ms", 250},
                         {"pull", "all"},
                         {"pull_rate", 20 << 20},
                         {"push_rate", 1000},
                         {"insecure", true},
                         {"take_over", true}};
  EXPECT_EQ(daemon->request(), expected);
  EXPECT_TRUE(out.empty());
}

TEST_F(Ctl, AttachDefaults) {
  answer("{\"ok\":true}\n");
  ASSERT_EQ(run({"attach", "data", "rmem://host/x"}), 0);
  const json r = daemon->request();
  EXPECT_EQ(r["mode"], 0600);
  // The daemon knows who calls, and has defaults of its own.
  for (const char* member : {"uid", "gid", "chunk", "on_loss", "resident_limit", "dirty_limit",
                             "push_threshold", "fault_timeout_ms", "sync_timeout_ms",
                             "push_interval_ms", "pull", "pull_rate", "push_rate"})
    EXPECT_FALSE(r.contains(member)) << member;
}

TEST_F(Ctl, OtherVerbsNameTheRegion) {
  regions = {region("a")};
  answer("{\"ok\":true}\n");
  for (const char* verb : {"sync", "drop", "detach"}) {
    ASSERT_EQ(run({verb, "a"}), 0);
    EXPECT_EQ(daemon->request(), (json{{"verb", verb}, {"name", "a"}}));
  }
}

TEST_F(Ctl, LimitSendsWhatIsGiven) {
  regions = {region("a")};
  answer("{\"ok\":true}\n");
  ASSERT_EQ(run({"limit", "a", "--pull-rate", "20MiB"}), 0);
  EXPECT_EQ(daemon->request(), (json{{"verb", "limit"}, {"name", "a"}, {"pull_rate", 20 << 20}}));
  ASSERT_EQ(run({"limit", "a", "--push-rate", "0"}), 0);
  EXPECT_EQ(daemon->request(), (json{{"verb", "limit"}, {"name", "a"}, {"push_rate", 0}}));
  EXPECT_EQ(run({"limit", "a"}), 2);
}

TEST_F(Ctl, ForceLeavesItToADaemonThatAnswers) {
  regions = {region("a")};
  answer(R"({"ok":true,"warning":"","lost_bytes":0})"
         "\n");
  EXPECT_EQ(run({"detach", "a", "--force"}), 0);
  EXPECT_EQ(daemon->request()["force"], true);
  answer(R"({"ok":true,"warning":"","lost_bytes":4096})"
         "\n");
  EXPECT_EQ(run({"detach", "a", "--force"}), 1);
  EXPECT_NE(err.find("lost_bytes=4096"), std::string::npos);
  EXPECT_EQ(FakeRegions::forced, 0);
}

TEST_F(Ctl, ForceNeedsNoDaemon) {
  regions = {region("a")};
  EXPECT_EQ(run({"detach", "a", "--force"}), 1);
  EXPECT_NE(err.find("lost_bytes=12288"), std::string::npos);
  EXPECT_NE(err.find("--take-over"), std::string::npos);
  answer("hang up");
  EXPECT_EQ(run({"detach", "a", "--force"}), 1);
  EXPECT_EQ(FakeRegions::forced, 2);
  regions[0].dirty_bytes = regions[0].writeback_bytes = 0;
  EXPECT_EQ(run({"detach", "a", "--force"}), 0);
  // Without it, the daemon has to do it.
  EXPECT_EQ(run({"detach", "a"}), 7);
  EXPECT_EQ(FakeRegions::forced, 3);
}

TEST_F(Ctl, PullSendsItsRange) {
  regions = {region("a")};
  answer(R"({"ok":true,"pull":1})"
         "\n");
  EXPECT_EQ(run({"pull", "a", "--range", "1MiB+64KiB"}), 0) << err;
  EXPECT_EQ(daemon->request(),
            json({{"verb", "pull"}, {"name", "a"}, {"offset", 1 << 20}, {"length", 64 << 10}}));
  for (const char* bad : {"4096", "+4096", "1MiB+", "1MiB+0", "a+b", "0+1+2"}) {
    EXPECT_EQ(run({"pull", "a", "--range", bad}), 2) << bad;
  }
}

TEST_F(Ctl, AbortNeedsNoDaemon) {
  EXPECT_EQ(run({"abort", "a"}), 3);
  regions = {region("a")};
  EXPECT_EQ(run({"abort", "a"}), 0);
  EXPECT_EQ(FakeRegions::aborted, 1);
}

TEST_F(Ctl, WhyTellsStateAndNextStep) {
  regions = {region("a"), region("b"), region("c")};
  regions[0].state = RMEM_STATE_DEGRADED;
  regions[0].reason = "rmem://host/a: refused\033[2J";
  regions[1].state = RMEM_STATE_FAILED;
  regions[1].waiting = 0;
  EXPECT_EQ(run({"status", "--why"}), 0);
  EXPECT_NE(out.find("a: degraded: rmem://host/a: refused?[2J\n"), std::string::npos) << out;
  EXPECT_NE(out.find("1 waiting for a page or for room"), std::string::npos) << out;
  EXPECT_NE(out.find("12KiB not durable"), std::string::npos) << out;
  EXPECT_NE(out.find("rmemctl abort a"), std::string::npos) << out;
  EXPECT_NE(out.find("rmemctl salvage b FILE"), std::string::npos) << out;
  EXPECT_EQ(out.find("rmemctl abort b"), std::string::npos) << out;
  EXPECT_EQ(run({"status", "c", "--why"}), 0);
  EXPECT_EQ(out.find("next:"), std::string::npos) << out;
}

TEST_F(Ctl, DetachPassesOnAWarning) {
  regions = {region("a")};
  answer("{\"ok\":true,\"warning\":\"the claim stays\"}\n");
  EXPECT_EQ(run({"detach", "a"}), 0);
  EXPECT_EQ(err, "rmemctl: warning: the claim stays\n");
}

TEST_F(Ctl, SocketFromTheEnvironment) {
  ::setenv("RMEM_SOCKET", (directory_ + "/elsewhere").c_str(), 1);
  regions = {region("a")};
  Context context;
  context.regions = [this]() -> Result<std::unique_ptr<Regions>> {
    return std::unique_ptr<Regions>(new FakeRegions(regions));
  };
  std::ostringstream stream;
  context.out = &stream;
  const char* argv[] = {"rmemctl", "sync", "a"};
  testing::internal::CaptureStderr();
  EXPECT_EQ(ctl::run(3, argv, context), 7);
  EXPECT_NE(testing::internal::GetCapturedStderr().find("/elsewhere"), std::string::npos);
  ::unsetenv("RMEM_SOCKET");
}

TEST_F(Ctl, StatusJsonIsTheContract) {
  regions = {region("a")};
  ASSERT_EQ(run({"status", "--json"}), 0);
  EXPECT_TRUE(err.empty());
  EXPECT_EQ(
      out,
      "{\"schema\":1,\"regions\":[{\"name\":\"a\",\"source\":\"rmem://host:7070/a\","
      "\"state\":\"active\",\"size_bytes\":67108864,\"chunk_bytes\":262144,"
      "\"resident_bytes\":3145728,\"dirty_bytes\":8192,\"writeback_bytes\":4096,"
      "\"fetched_bytes\":3670016,\"pushed_bytes\":1000,"
      "\"faults\":{\"demand\":14,\"resident\":100,\"write_protect\":5},\"waiting\":1,"
      "\"errors\":2,\"read_only\":false,\"daemon_pid\":4711,\"reason\":\"\",\"id\":3,"
      "\"users\":0,\"uid\":1000,\"gid\":100,\"mode\":\"0640\",\"on_loss\":\"wait\","
      "\"resident_limit_bytes\":1073741824,\"dirty_limit_bytes\":0,\"push_threshold_bytes\":0,"
      "\"fault_timeout_ms\":30000,\"sync_timeout_ms\":100,\"instance\":\"default\","
      "\"bind\":\"\",\"memory\":{\"module_bytes\":5632,\"daemon_bytes\":null,"
      "\"daemon_total_bytes\":null,\"daemon_bound_bytes\":null}}]}\n");
}

TEST_F(Ctl, StatusTellsTheMemoryOfADaemonThatAnswers) {
  regions = {region("a")};
  answer(
      "{\"ok\":true,\"memory_bytes\":70000,\"memory_bound_bytes\":90000,\"regions\":["
      "{\"id\":2,\"buffer_bytes\":1},{\"id\":3,\"buffer_bytes\":4096}]}\n");
  ASSERT_EQ(run({"status", "--json"}), 0);
  const json expected = {{"module_bytes", 5632},
                         {"daemon_bytes", 4096},
                         {"daemon_total_bytes", 70000},
                         {"daemon_bound_bytes", 90000}};
  EXPECT_EQ(json::parse(out)["regions"][0]["memory"], expected);
  EXPECT_EQ(daemon->request()["verb"], "status");

  // It is not waited for, and no error of its own is one of status.
  for (const char* nothing : {"silence", "hang up", "{\"ok\":false}\n", "[]\n"}) {
    answer(nothing);
    ASSERT_EQ(run({"status", "--json"}), 0) << nothing;
    EXPECT_TRUE(json::parse(out)["regions"][0]["memory"]["daemon_bytes"].is_null()) << nothing;
  }
}

TEST_F(Ctl, StatusJsonWithoutRegions) {
  ASSERT_EQ(run({"status", "--json"}), 0);
  EXPECT_EQ(out, "{\"schema\":1,\"regions\":[]}\n");
}

TEST_F(Ctl, JsonErrorsLeaveStdoutEmpty) {
  EXPECT_EQ(run({"status", "none", "--json"}), 3);
  EXPECT_TRUE(out.empty());
  const json error = json::parse(err);
  EXPECT_EQ(error["schema"], 1);
  EXPECT_EQ(error["error"]["code"], 3);
  EXPECT_EQ(error["error"]["name"], "not-found");
  EXPECT_EQ(error["error"]["cause"], "region none: no such region");
  EXPECT_TRUE(error["error"]["hint"].is_string());
  EXPECT_EQ(run({"status", "a/b", "--json"}), 2);
  EXPECT_TRUE(out.empty());
  EXPECT_EQ(json::parse(err)["error"]["code"], 2);
}

TEST_F(Ctl, StatusOfOneRegion) {
  regions = {region("a"), region("b")};
  ASSERT_EQ(run({"status", "b", "--json"}), 0);
  const json status = json::parse(out);
  ASSERT_EQ(status["regions"].size(), 1u);
  EXPECT_EQ(status["regions"][0]["name"], "b");
}

TEST_F(Ctl, StatusTable) {
  regions = {region("a"), region("longer-name")};
  regions[1].state = RMEM_STATE_DEGRADED;
  regions[1].reason = "host:7070: connection \x1b[31mrefused";
  regions[1].flags = RMEM_REGION_READ_ONLY;
  regions[1].daemon_pid.reset();
  ASSERT_EQ(run({"status"}), 0);
  EXPECT_EQ(out,
            "NAME         STATE      SIZE  RESIDENT  DIRTY  FETCHED  PUSHED  FAULTS  WAITING  "
            "SOURCE\n"
            "a            active    64MiB      3MiB  12KiB   3.5MiB   1000B      14        1  "
            "rmem://host:7070/a\n"
            "longer-name  degraded  64MiB      3MiB  12KiB   3.5MiB   1000B      14        1  "
            "rmem://host:7070/longer-name (read-only)\n"
            "longer-name is degraded: host:7070: connection ?[31mrefused\n");
  regions.clear();
  ASSERT_EQ(run({"status"}), 0);
  EXPECT_EQ(out, "no regions\n");
}

TEST(Format, HumanSizes) {
  EXPECT_EQ(human_size(0), "0");
  EXPECT_EQ(human_size(1), "1B");
  EXPECT_EQ(human_size(1023), "1023B");
  EXPECT_EQ(human_size(1024), "1KiB");
  EXPECT_EQ(human_size(1536), "1.5KiB");
  EXPECT_EQ(human_size(28 * 1048576ull + 1000), "28MiB");
  EXPECT_EQ(human_size(200 * 1048576ull + 600000), "201MiB");
  EXPECT_EQ(human_size(5ull << 40), "5TiB");
  EXPECT_EQ(human_size(~0ull), "16384PiB");
}

TEST(Format, Events) {
  kchan::Event event;
  event.kind = RMEM_EVENT_STATE;
  event.region = region("a");
  event.region.state = RMEM_STATE_DEGRADED;
  event.region.reason = "refused";
  EXPECT_EQ(event_text(event), "a state degraded: refused\n");
  EXPECT_EQ(event_json(event),
            "{\"schema\":1,\"event\":\"state\",\"name\":\"a\",\"id\":3,\"state\":\"degraded\","
            "\"reason\":\"refused\"}\n");
  event.kind = 99;
  EXPECT_EQ(json::parse(event_json(event))["event"], "unknown");
}

TEST(BindTarget, IsAbsoluteAndAFile) {
  char directory[] = "/tmp/rmem-bind-XXXXXX";
  ASSERT_NE(::mkdtemp(directory), nullptr);
  const std::string d = directory;
  auto absent = bind_target(d + "/./new");
  ASSERT_TRUE(absent.ok());
  EXPECT_EQ(absent->path, d + "/new");
  EXPECT_FALSE(absent->exists);
  std::ofstream(d + "/there") << "x";
  ASSERT_EQ(::symlink("there", (d + "/link").c_str()), 0);
  auto link = bind_target(d + "/link");
  ASSERT_TRUE(link.ok());
  EXPECT_EQ(link->path, d + "/there");
  EXPECT_TRUE(link->exists);
  EXPECT_EQ(bind_target(d).status().code(), Code::kUsage);
  EXPECT_EQ(bind_target(d + "/none/x").status().code(), Code::kUsage);
  EXPECT_EQ(bind_target(d + "/new/").status().code(), Code::kUsage);
  EXPECT_EQ(bind_target("").status().code(), Code::kUsage);

  // What was made is removed only as long as it is empty.
  EXPECT_TRUE(unbind(d + "/there", false, true).ok());
  EXPECT_EQ(::access((d + "/there").c_str(), F_OK), 0);
  std::ofstream(d + "/empty").close();
  EXPECT_TRUE(unbind(d + "/empty", false, true).ok());
  EXPECT_NE(::access((d + "/empty").c_str(), F_OK), 0);
  for (const char* name : {"/there", "/link"}) ::unlink((d + name).c_str());
  ::rmdir(directory);
}

}  // namespace
}  // namespace rmem::ctl
