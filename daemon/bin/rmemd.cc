// SPDX-License-Identifier: MIT
// rmemd: serves this host's regions from stores on other machines.
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "base/cli.hh"
#include "base/log.hh"
#include "base/process.hh"
#include "base/reactor.hh"
#include "base/signals.hh"
#include "bin/tls_options.hh"
#include "control/channel_loop.hh"
#include "control/config.hh"
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

struct CommandLine {
  cli::ConfigFile file;
  std::optional<std::string> socket;
  std::optional<std::string> instance;
  std::optional<std::string> state_dir;
  std::optional<std::string> hedge;
  std::optional<std::string> compress;
  std::optional<unsigned> bulk_connections, page_connections;
  TlsFlags tls;
};

// The file, and what the command line says instead.
Result<control::Config> configure(const CommandLine& line) {
  control::Config config;
  if (!line.file.path.empty()) {
    const Status read = config::read(line.file.path, control::keys(config));
    if (!read.ok()) return read.hint().empty() ? read.with_hint("see rmemd.toml(5)") : read;
  }
  if (line.socket) config.socket = *line.socket;
  if (line.instance) config.instance = *line.instance;
  if (line.state_dir) config.state_dir = *line.state_dir;
  if (line.hedge) config.hedge = *line.hedge == "auto";
  for (const auto& [word, meaning] : control::compressions())
    if (line.compress == word) config.remote.compression = meaning;
  if (line.bulk_connections) config.remote.bulk_connections = *line.bulk_connections;
  if (line.page_connections) config.remote.page_connections = *line.page_connections;
  line.tls.apply(config.remote.tls);
  if (!control::valid_region_name(config.instance)) {
    return Status(Code::kUsage, "--instance: `" + config.instance + "' is not a name");
  }
  return config;
}

// The defaults of regions as the file has them now. One that is wrong changes nothing.
void reload(const CommandLine& line, control::Config& config) {
  CommandLine again = line;
  again.file.find(control::kDefaultConfig);
  if (again.file.path.empty()) return kLog.warning("there is no configuration file to reload");
  const auto next = configure(again);
  if (!next.ok()) {
    const Status why = next.status();
    return kLog.error("nothing is reloaded: {}; {}", why.cause(), why.hint());
  }
  for (const std::string_view key : control::fixed_changes(config, *next)) {
    kLog.warning("{}: `{}' changes only when rmemd is started again", again.file.path, key);
  }
  config.stop_timeout = next->stop_timeout;
  config.defaults = next->defaults;
  kLog.info("reloaded {}", again.file.path);
}

Status run(const CommandLine& line, control::Config config) {
  auto device = kchan::Device::open(kRingEntries);
  if (!device.ok()) return device.status();
  auto socket = control::ControlSocket::listen(config.socket);
  if (!socket.ok()) return socket.status();
  auto reactor = Reactor::create();
  if (!reactor.ok()) return reactor.status();
  auto kernel = control::module_kernel(**reactor, **device);
  if (!kernel.ok()) return kernel.status();

  warn(lock_memory());
  warn(set_io_flusher());
  raise_file_limit();
  hide_memory();

  Status ended;
  control::ChannelLoop loop(**reactor, **device, [&] {
    ended = Status(Code::kFailed, "the request ring is damaged", "restart rmemd");
    (*reactor)->stop();
  });
  pager::Pager::Options pages;
  pages.hedge = config.hedge;
  pager::Pager pager(**device, pages, [&](auto due) { loop.wake(due); });
  const auto sources = control::source_factory(**reactor, config.remote);
  control::Regions regions(**reactor, **kernel, pager, *sources, config.instance,
                           control::Recordings(config.state_dir + "/recordings"));
  control::Verbs verbs(regions, *sources, config.instance, config.defaults);
  control::Server server(
      **reactor, std::move(*socket),
      [&](const control::Peer& peer, const nlohmann::json& request,
          const control::Server::Reply& reply) { verbs.handle(peer, request, reply); });

  bool leaving = false;
  auto signals = Signals::create(**reactor, [&](int number) {
    if (number == SIGUSR1) return store::log_stats();
    if (number == SIGHUP) return reload(line, config);
    if (std::exchange(leaving, true)) return (*reactor)->stop();  // twice: at once
    announce_stopping();
    server.stop();
    regions.push_all(config.stop_timeout, [&] { (*reactor)->stop(); });
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

  if (::geteuid() == 0 && ended.ok() && !others_serve(**kernel, config.instance)) {
    warn(control::unmount_rmemfs(control::kRegionDirectory));
  }
  // Regions stay in the kernel, quiesced. A helper thread may still wait for an
  // fsync that nobody will answer now: do not wait for it, nor take away what it
  // refers to.
  if (ended.ok()) {
    ::unlink(config.socket.c_str());
    std::fflush(nullptr);
    ::_exit(0);
  }
  return ended;
}

int program(int argc, char** argv) {
  CLI::App app("Serves the regions of this host; stays in the foreground.", "rmemd");
  CommandLine line;
  const control::Config usual;
  app.add_option("--socket", line.socket, "control socket [" + usual.socket + "]")
      ->envname("RMEM_SOCKET")
      ->type_name("PATH");
  app.add_option("--instance", line.instance,
                 "adopt and make only regions of this instance [" + usual.instance + "]")
      ->type_name("ID");
  app.add_option("--state-dir", line.state_dir,
                 "where recordings are kept [" + usual.state_dir + "]")
      ->type_name("DIR");
  app.add_option("--hedge", line.hedge,
                 "whether a page that is late is asked for on the other connection, too: auto or "
                 "off [off]")
      ->check(CLI::IsMember({"auto", "off"}))
      ->type_name("HOW");
  app.add_option("--compress", line.compress,
                 "what compresses what travels, while that pays: auto, lz4, zstd or off [auto]")
      ->check(CLI::IsMember({"auto", "lz4", "zstd", "off"}))
      ->type_name("HOW");
  app.add_option("--bulk-connections", line.bulk_connections,
                 "how many carry what a region reads ahead and writes; 0: one, or as many as are "
                 "worth it [0]")
      ->check(CLI::Range(0u, store::RemoteOptions::kMostConnections))
      ->type_name("N");
  app.add_option("--page-connections", line.page_connections,
                 "how many share the pages that programs wait for in a region; 0: one, or as many "
                 "as are worth it [0]")
      ->check(CLI::Range(0u, store::RemoteOptions::kMostConnections))
      ->type_name("N");
  line.tls.add(app, transport::TlsSide::kClient);
  cli::add_config(app, line.file, control::kDefaultConfig);
  app.set_version_flag("--version", "rmemd " RMEM_VERSION);
  if (const auto code = cli::parse(app, argc, argv)) return *code;
  line.file.find(control::kDefaultConfig);
  auto config = configure(line);
  if (!config.ok() || line.file.check) return cli::fail("rmemd", config.status());
  return cli::fail("rmemd", run(line, std::move(config).value()));
}

}  // namespace
}  // namespace rmem

int main(int argc, char** argv) { return rmem::cli::guard("rmemd", rmem::program, argc, argv); }
