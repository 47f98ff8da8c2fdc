// SPDX-License-Identifier: MIT
// Daemon, server and network in one process, on a clock and a chance of their own:
// delays, lost connections, deaths, resets and full disks, and after all of it every
// byte that was promised. RMEM_SEED is the first of the seeds, RMEM_SIMULATIONS how
// many there are.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "base/log.hh"
#include "control/regions.hh"
#include "server/server.hh"
#include "simulation/host.hh"
#include "simulation/kernel.hh"
#include "simulation/network.hh"
#include "support/slowness.hh"
#include "support/temp_dir.hh"

namespace rmem::sim {
namespace {

constexpr Time kTrouble = 8s;    // then the world heals
constexpr Time kPatience = 90s;  // for everybody to be done after that
constexpr int kTasks = 5;

// With a failure of one call instead of trouble of all kinds: less is enough.
constexpr Time kCalm = 250ms;

struct Outcome {
  std::string violation;
  std::uint64_t calls[4] = {};  // by Host::Call
  bool failed = false;          // the call that had to
  std::uint64_t trace = 0;
  std::uint64_t steps = 0, syncs = 0, server_deaths = 0, daemon_deaths = 0, resets = 0, cuts = 0;
};

class World {
 public:
  explicit World(std::uint64_t seed, bool troubled = true)
      : troubled_(troubled),
        disk_file_(make_disk()),
        host_(seed, disk_file_),
        reactor_(std::move(Reactor::create()).value()),
        kernel_(*reactor_),
        network_(*reactor_, dir_ / "front", dir_ / "back"),
        nemesis_(*reactor_, [this] { strike(); }),
        end_(*reactor_, [this] { heal(); }) {
    network_.latency_most = host_.chance.one_in(3) ? Time(40ms) : Time(1ms);
    host_.job_most = host_.chance.one_in(3) ? Time(50ms) : Time(2ms);
    for (int i = 0; i < kTasks; ++i) tasks_.push_back(std::make_unique<Task>(*this));
  }

  void fail_once(Host::Call kind, std::uint64_t nth) { host_.fail(kind, nth); }

  Outcome run() {
    reactor_->on_turn_end([this] {
      if (!kernel_.violation.empty() || over_) reactor_->stop();
    });
    reactor_->post([this] {
      start_server();
      start_daemon();
      attach();
    });
    const Host::Exposed exposed;
    for (bool running = true; running;) {
      running = false;
      try {
        reactor_->run();
      } catch (const std::bad_alloc&) {
        // What main() makes of it: the end of the program. Whose it was cannot be told.
        const Host::Safe safe;
        kernel_.die();
        daemon_.reset();
        server_.reset();
        ++host_.life;
        reactor_->post([this] {
          start_server();
          start_daemon();
          if (!attached_) attach();
        });
        running = true;
      }
    }
    const Host::Safe safe;
    outcome_.violation = kernel_.violation;
    outcome_.trace = host_.trace;
    for (int i = 0; i < 4; ++i) outcome_.calls[i] = host_.calls(static_cast<Host::Call>(i));
    outcome_.failed = host_.has_failed();
    kernel_.die();
    daemon_.reset();
    server_.reset();
    return outcome_;
  }

 private:
  void attach() {
    if (!daemon_) return;
    control::AttachOptions options;
    options.name = "data";
    options.source = "rmem+unix:///data?socket=" + (dir_ / "front");
    options.chunk = kChunk;
    options.push_interval = std::chrono::milliseconds(20 + host_.chance.below(2000));
    daemon_->regions.attach(options, [this](const auto& attached) {
      const Host::Safe safe;
      if (!attached.ok()) {
        // Only because of what failed, and it says what.
        if (!host_.has_failed() || attached.status().cause().empty())
          return fail("attach: " + attached.status().cause());
        return later([this] { attach(); });
      }
      if (std::exchange(attached_, true)) return;
      for (const auto& task : tasks_) task->soon();
      if (troubled_) nemesis_.arm(host_.chance.between(1ms, 400ms));
      end_.arm(troubled_ ? kTrouble : kCalm);
    });
  }

  struct Daemon {
    explicit Daemon(World& world)
        : timer(*world.reactor_, [this] { pager.tick(); }),
          pager(world.kernel_, {.buffer_bytes = 256 << 10, .requests = 64},
                [this](auto due) {
                  timer.arm(std::max(due - Reactor::Clock::now(), Reactor::Clock::duration{}));
                }),
          sources(control::source_factory(*world.reactor_,
                                          {.bulk_connections = world.bulk_connections_,
                                           .page_connections = world.page_connections_})),
          regions(*world.reactor_, world.kernel_, pager, *sources, "default",
                  control::Recordings("/nowhere")) {}
    Reactor::Timer timer;
    pager::Pager pager;
    std::unique_ptr<control::SourceFactory> sources;
    control::Regions regions;
  };

  // A program: one thing after the other.
  struct Task {
    explicit Task(World& world) : world(world), timer(*world.reactor_, [this] { step(); }) {}
    void soon() { timer.arm(world.host_.chance.between(0ns, 20ms)); }
    void step() {
      const Host::Safe safe;
      if (world.healing_) {
        ++world.idle_tasks_;
        return world.maybe_finish();
      }
      ++world.outcome_.steps;
      Chance& chance = world.host_.chance;
      const auto then = [this](int) { soon(); };
      const std::uint64_t what = chance.below(100);
      if (what < 45) return world.kernel_.touch(chance.below(kPages), false, then);
      if (what < 85) return world.kernel_.touch(chance.below(kPages), true, then);
      if (what < 92) {
        world.kernel_.drop(what == 85);
        return soon();
      }
      ++world.outcome_.syncs;
      world.kernel_.sync(then);
    }
    World& world;
    Reactor::Timer timer;
  };

  std::string make_disk() {
    const std::string path = dir_ / "disk";
    std::ofstream(path) << std::string(kSize, '\0');
    return path;
  }

  void start_server() {
    server::ServerOptions options;
    options.state_dir = dir_ / "state";
    options.exports = {*server::ExportSpec::parse("data=file://" + disk_file_)};
    auto made = server::Server::create(*reactor_, options);
    if (!made) return not_started("server", made.status(), [this] { start_server(); });
    server_ = std::move(made).value();
    transport::Address at;
    at.path = dir_ / "back";
    if (const Status s = server_->listen(at); !s.ok()) {
      server_.reset();
      not_started("server", s, [this] { start_server(); });
    }
  }
  void start_daemon() {
    daemon_ = std::make_unique<Daemon>(*this);
    kernel_.attend(&daemon_->pager);
    const Status s = daemon_->regions.adopt([] {});
    if (s.ok()) return;
    kernel_.die();
    daemon_.reset();
    not_started("daemon", s, [this] { start_daemon(); });
  }
  // Then whoever supervises it tries again.
  void not_started(const std::string& what, const Status& why, std::function<void()> again) {
    const Host::Safe safe;
    if (!host_.has_failed() || why.cause().empty()) return fail(what + ": " + why.cause());
    later(std::move(again));
  }
  void kill_daemon() {
    const Host::Safe safe;
    if (!daemon_) return;
    ++outcome_.daemon_deaths;
    kernel_.die();
    daemon_.reset();
    later([this] {
      if (!daemon_) start_daemon();
    });
  }
  void kill_server(bool reset) {
    const Host::Safe safe;
    if (server_) ++outcome_.server_deaths;
    server_.reset();
    if (reset) {
      ++outcome_.resets;
      host_.reset_disk();
      kernel_.check_disk(host_.read_disk(), false);
    } else {
      ++host_.life;
    }
    later([this] {
      if (!server_) start_server();
    });
  }
  // Within three seconds, or at once when it is time to heal.
  void later(std::function<void()> what) {
    const Host::Safe safe;
    const Time when = healing_ ? Time(0) : host_.chance.between(0ns, 3s);
    laters_.push_back(std::make_unique<Reactor::Timer>(*reactor_, std::move(what)));
    laters_.back()->arm(when);
  }

  void strike() {
    const Host::Safe safe;
    Chance& chance = host_.chance;
    host_.note(0xdead);
    switch (chance.below(10)) {
      case 0:
        ++outcome_.cuts;
        network_.cut_all();
        break;
      case 1:
      case 2:
        ++outcome_.cuts;
        network_.cut_one();
        break;
      case 3: {
        const std::uint64_t ways = 1 + chance.below(3);
        network_.hold(host_.now + chance.between(1ms, 9s), ways & 1, ways & 2);
        break;
      }
      case 4:
        kill_server(false);
        break;
      case 5:
        kill_server(true);
        break;
      case 6:
        kill_daemon();
        break;
      case 7:
        host_.write_error = chance.one_in(2) ? ENOSPC : EIO;
        host_.write_fails_one_in = 1 + chance.below(8);
        later([this] { host_.write_fails_one_in = 0; });
        break;
      case 8:
        host_.flush_fails_one_in = 1 + chance.below(4);
        later([this] { host_.flush_fails_one_in = 0; });
        break;
      default:
        kernel_.drop(true);
        break;
    }
    nemesis_.arm(chance.between(1ms, 800ms));
  }

  void heal() {
    const Host::Safe safe;
    if (healing_) return fail(std::to_string(kernel_.waiting()) + " wait for ever");
    healing_ = true;
    nemesis_.disarm();
    for (const auto& one : laters_) one->disarm();
    network_.hold(Time(0), true, true);
    host_.write_fails_one_in = host_.flush_fails_one_in = 0;
    if (!server_) start_server();
    if (!daemon_) start_daemon();
    end_.arm(kPatience);
    maybe_finish();
  }
  // When every task has had its answer: all is made durable, and looked at on the disk
  // and from above.
  void maybe_finish() {
    const Host::Safe safe;
    if (idle_tasks_ < kTasks) return;
    kernel_.sync([this](int err) {
      // Of a write that had failed before the world was healed.
      if (err != 0) return later([this] { maybe_finish(); });
      host_.reset_disk();
      kernel_.check_disk(host_.read_disk(), true);
      kernel_.drop(true);
      for (std::uint64_t page = 0; page < kPages; ++page)
        kernel_.touch(page, false, [this](int) { over_ = ++seen_ == kPages; });
    });
  }

  void fail(const std::string& what) { kernel_.violated(what); }

  const bool troubled_;
  bool attached_ = false;
  test::TempDir dir_{test::TempDir::Where::kMemory};
  std::string disk_file_;
  Host host_;
  const unsigned bulk_connections_{static_cast<unsigned>(host_.chance.below(4))};
  const unsigned page_connections_{static_cast<unsigned>(host_.chance.below(4))};
  std::unique_ptr<Reactor> reactor_;
  Kernel kernel_;
  Network network_;
  std::unique_ptr<server::Server> server_;
  std::unique_ptr<Daemon> daemon_;
  std::vector<std::unique_ptr<Task>> tasks_;
  std::vector<std::unique_ptr<Reactor::Timer>> laters_;
  Reactor::Timer nemesis_;
  Reactor::Timer end_;
  bool healing_ = false;
  bool over_ = false;
  int idle_tasks_ = 0;
  std::uint64_t seen_ = 0;
  Outcome outcome_;
};

std::uint64_t number(const char* variable, std::uint64_t otherwise) {
  const char* const text = std::getenv(variable);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

class Simulation : public testing::Test {
 protected:
  void SetUp() override {
    log::set_level(std::getenv("RMEM_SIMULATION_LOG") != nullptr ? log::Level::kDebug
                                                                 : log::Level::kNone);
  }
  void TearDown() override { log::set_level(log::Level::kInfo); }
  const std::uint64_t first = number("RMEM_SEED", 1);
};

// In parts, which ctest runs side by side.
class Seeds : public Simulation, public testing::WithParamInterface<std::uint64_t> {
 protected:
  static constexpr std::uint64_t kParts = 4;
};

TEST_P(Seeds, NothingPromisedIsLost) {
  const std::uint64_t all = number("RMEM_SIMULATIONS", 200 / test::kSlowness);
  const std::uint64_t part = (all + kParts - 1) / kParts;
  const std::uint64_t begin = std::min(GetParam() * part, all);
  const std::uint64_t seeds = std::min(part, all - begin);
  if (seeds == 0) GTEST_SKIP() << "fewer seeds than parts";
  const std::uint64_t first_here = first + begin;
  Outcome sum;
  for (std::uint64_t seed = first_here; seed < first_here + seeds; ++seed) {
    const Outcome outcome = World(seed).run();
    sum.steps += outcome.steps;
    sum.syncs += outcome.syncs;
    sum.server_deaths += outcome.server_deaths;
    sum.daemon_deaths += outcome.daemon_deaths;
    sum.resets += outcome.resets;
    sum.cuts += outcome.cuts;
    ASSERT_EQ(outcome.violation, "")
        << "again: RMEM_SEED=" << seed
        << " RMEM_SIMULATIONS=1 simulation_test --gtest_filter=*NothingPromisedIsLost*";
  }
  std::printf(
      "simulation: seeds %llu to %llu: %llu steps, %llu syncs, %llu deaths of the server "
      "(%llu of its machine), %llu of the daemon, %llu cuts\n",
      static_cast<unsigned long long>(first_here),
      static_cast<unsigned long long>(first_here + seeds - 1),
      static_cast<unsigned long long>(sum.steps), static_cast<unsigned long long>(sum.syncs),
      static_cast<unsigned long long>(sum.server_deaths),
      static_cast<unsigned long long>(sum.resets),
      static_cast<unsigned long long>(sum.daemon_deaths),
      static_cast<unsigned long long>(sum.cuts));
  // That it was a test: all of it happened.
  if (seeds >= 20) {
    EXPECT_GT(sum.syncs, seeds);
    EXPECT_GT(sum.server_deaths, seeds / 2);
    EXPECT_GT(sum.daemon_deaths, seeds / 2);
    EXPECT_GT(sum.resets, seeds / 4);
  }
}

INSTANTIATE_TEST_SUITE_P(Parts, Seeds, testing::Range(std::uint64_t{0}, std::uint64_t{4}));

// SQLite's way: the first, the second, ... call fails, until a run needs no more of them.
class FailureSweep : public Simulation {
 protected:
  // Each `stride`-th of them, which ones depends on the seed; 1: all.
  void sweep(Host::Call kind, std::uint64_t stride) {
    stride = std::getenv("RMEM_LONG") != nullptr ? 1 : stride * test::kSlowness;
    std::uint64_t runs = 0, aborts = 0;
    // There are no more than some descriptors, so an early one is always among them.
    for (std::uint64_t nth = 1 + first % std::min<std::uint64_t>(stride, 5);;
         nth += stride, ++runs) {
      const auto run = [&] {
        World world(7, false);
        world.fail_once(kind, nth);
        return world.run();
      };
      // In a process of its own: some failures might end it.
      const pid_t child = ::fork();
      ASSERT_GE(child, 0);
      if (child == 0) {
        const Outcome outcome = run();
        if (!outcome.violation.empty()) std::fprintf(stderr, "%s\n", outcome.violation.c_str());
        ::_exit(!outcome.violation.empty() ? 2 : outcome.failed ? 0 : 1);
      }
      int status = 0;
      ASSERT_EQ(::waitpid(child, &status, 0), child);
      if (WIFEXITED(status) && WEXITSTATUS(status) == 1) break;  // none was left to fail
      // Without memory a program may end where no exception passes, as in the destructor
      // of a JSON value, which allocates. No other way, and with nothing else.
      const bool aborted =
          kind == Host::Call::kMemory && !WIFEXITED(status) && WTERMSIG(status) == SIGABRT;
      aborts += aborted;
      EXPECT_TRUE(WIFEXITED(status) || aborted) << "call " << nth << ": " << WTERMSIG(status);
      if (WIFEXITED(status)) {
        EXPECT_EQ(WEXITSTATUS(status), 0) << "call " << nth;
      }
    }
    std::printf("sweep: %llu runs, each %llu-th call failed; %llu ended the program\n",
                static_cast<unsigned long long>(runs), static_cast<unsigned long long>(stride),
                static_cast<unsigned long long>(aborts));
    EXPECT_GT(runs, 0u);
    if (runs >= 20) {
      EXPECT_LT(aborts, runs / 2);
    }
  }
};

TEST_F(FailureSweep, Descriptors) { sweep(Host::Call::kDescriptor, 1); }
TEST_F(FailureSweep, SocketCalls) { sweep(Host::Call::kSocket, 7); }
TEST_F(FailureSweep, FileCalls) { sweep(Host::Call::kFile, 1); }
TEST_F(FailureSweep, Allocations) { sweep(Host::Call::kMemory, 13); }

TEST_F(Simulation, ASeedIsARun) {
  for (std::uint64_t seed = first; seed < first + 5; ++seed) {
    const Outcome once = World(seed).run();
    const Outcome again = World(seed).run();
    EXPECT_EQ(once.trace, again.trace) << "seed " << seed;
    EXPECT_EQ(once.steps, again.steps) << "seed " << seed;
  }
}

}  // namespace
}  // namespace rmem::sim
