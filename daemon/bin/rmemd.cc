// SPDX-License-Identifier: MIT
// rmemd: serves this host's regions from stores on other machines.
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <memory>
#include <string>

#include "base/cli.hh"
#include "base/log.hh"
#include "base/process.hh"
#include "base/reactor.hh"
#include "base/signals.hh"
#include "control/channel_loop.hh"
#include "control/kernel.hh"
#include "control/options.hh"
#include "control/regions.hh"
#include "control/rmemfs.hh"
#include "control/server.hh"
#include "control/source.hh"
#include "control/verbs.hh"
#include "kchan/device.hh"
#include "pager/pager.hh"
#include "store/filter.hh"

namespace rmem {
namespace {

constexpr std::uint32_t kRingEntries = 4096;
// To make durable what is dirty before leaving; the rest waits in the kernel.
constexpr std::chrono::seconds kLastPush{10};

const log::Source kLog{"rmemd"};

void warn(const Status& status) {
  if (!status.ok()) kLog.warning("{}", status.cause());
}

// Another instance still needs the mount that all share.
bool others_serve(control::Kernel& kernel, const std::string& instance) {
  const auto regions = kernel.list();
  if (!regions.ok()) return false;
  for (const auto& r : *regions) {
    if (r.instance != instance && r.daemon_pid) return true;
  }
  return false;
}

Status run(const std::string& socket_path, const std::string& instance,
           const std::string& state_dir) {
  if (!control::valid_region_name(instance)) {
    return Status(Code::kUsage, "--instance: `" + instance + "' is not a name");
  }
  auto device = kchan::Device::open(kRingEntries);
  if (!device.ok()) return device.status();
  auto socket = control::ControlSocket::listen(socket_path);
  if (!socket.ok()) return socket.status();
  auto reactor = Reactor::create();
  if (!reactor.ok()) return reactor.status();
  auto kernel = control::module_kernel(**reactor, **device);
  if (!kernel.ok()) return kernel.status();

  warn(lock_memory());
  warn(set_io_flusher());
  raise_file_limit();

  Status ended;
  control::ChannelLoop loop(**reactor, **device, [&] {
    ended = Status(Code::kFailed, "the request ring is damaged", "restart rmemd");
    (*reactor)->stop();
  });
  pager::Pager pager(**device, {}, [&](auto due) { loop.wake(due); });
  const auto sources = control::source_factory(**reactor);
  control::Regions regions(**reactor, **kernel, pager, *sources, instance,
                           control::Recordings(state_dir + "/recordings"));
  control::Verbs verbs(regions, *sources, instance);
  control::Server server(
      **reactor, std::move(*socket),
      [&](const control::Peer& peer, const nlohmann::json& request,
          const control::Server::Reply& reply) { verbs.handle(peer, request, reply); });

  bool leaving = false;
  auto signals = Signals::create(**reactor, [&](int number) {
    if (number == SIGUSR1) return store::log_stats();
    if (std::exchange(leaving, true)) return (*reactor)->stop();  // twice: at once
    announce_stopping();
    server.stop();
    regions.push_all(kLastPush, [&] { (*reactor)->stop(); });
  });
  if (!signals.ok()) return signals.status();

  if (Status s = loop.start(pager); !s.ok()) return s;
  const auto adopted = [&] {
    ended = server.start();
    if (!ended.ok()) return (*reactor)->stop();
    announce_ready();
  };
  if (Status s = regions.adopt(adopted); !s.ok()) return s;
  if (::geteuid() == 0) warn(control::mount_rmemfs(control::kRegionDirectory).status());
  const Watchdog watchdog(**reactor);
  (*reactor)->run();
  store::log_stats();

  if (::geteuid() == 0 && ended.ok() && !others_serve(**kernel, instance)) {
    warn(control::unmount_rmemfs(control::kRegionDirectory));
  }
  // Regions stay in the kernel, quiesced. A helper thread may still wait for an
  // fsync that nobody will answer now: do not wait for it, nor take away what it
  // refers to.
  if (ended.ok()) {
    ::unlink(socket_path.c_str());
    std::fflush(nullptr);
    ::_exit(0);
  }
  return ended;
}

int program(int argc, char** argv) {
  CLI::App app("Serves the regions of this host; stays in the foreground.", "rmemd");
  std::string socket = control::kDefaultSocket;
  std::string instance = control::kDefaultInstance;
  app.add_option("--socket", socket, "control socket [" + socket + "]")
      ->envname("RMEM_SOCKET")
      ->type_name("PATH");
  app.add_option("--instance", instance,
                 "adopt and make only regions of this instance [" + instance + "]")
      ->type_name("ID");
  std::string state_dir = control::kDefaultStateDir;
  app.add_option("--state-dir", state_dir, "where recordings are kept [" + state_dir + "]")
      ->type_name("DIR");
  app.set_version_flag("--version", "rmemd " RMEM_VERSION);
  if (const auto code = cli::parse(app, argc, argv)) return *code;
  return cli::fail("rmemd", run(socket, instance, state_dir));
}

}  // namespace
}  // namespace rmem

int main(int argc, char** argv) { return rmem::cli::guard("rmemd", rmem::program, argc, argv); }
