// SPDX-License-Identifier: MIT
// rmem-server: exports stores to rmemd. Reads the command line and the configuration
// file, assembles the objects, nothing else.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <optional>

#include "base/cli.hh"
#include "base/log.hh"
#include "base/process.hh"
#include "base/signals.hh"
#include "bin/tls_options.hh"
#include "server/config.hh"
#include "server/server.hh"
#include "store/filter.hh"

namespace {

using namespace rmem;

const log::Source kLog("rmem-server");

// What the kernel does not let us have makes memory pressure riskier, not
// service impossible.
void harden() {
  raise_file_limit();
  hide_memory();
  if (const Status locked = lock_memory(); !locked.ok())
    kLog.warning("{}; {}", locked.cause(), locked.hint());
  if (const Status flusher = set_io_flusher(); !flusher.ok())
    kLog.warning("{}; {}", flusher.cause(), flusher.hint());
}

struct CommandLine {
  cli::ConfigFile file;
  std::vector<std::string> listen;
  std::vector<std::string> exports;
  std::vector<std::string> allow;
  std::optional<std::string> state_dir;
  bool insecure = false;
  bool no_compress = false;
  TlsFlags tls;
};

// The file, and what the command line says instead.
Result<server::Config> configure(const CommandLine& line) {
  server::Config config;
  if (!line.file.path.empty()) {
    const Status read = config::read(line.file.path, server::keys(config));
    if (!read.ok()) return read.hint().empty() ? read.with_hint("see rmem-server.toml(5)") : read;
  }
  if (!line.listen.empty()) config.listen.clear();
  for (const std::string& text : line.listen) {
    auto address = transport::Address::parse(text);
    if (!address) return address.status();
    config.listen.push_back(*std::move(address));
  }
  if (!line.exports.empty()) config.options.exports.clear();
  for (const std::string& text : line.exports) {
    auto spec = server::ExportSpec::parse(text);
    if (!spec) return spec.status();
    config.options.exports.push_back(*std::move(spec));
  }
  for (const std::string& text : line.allow)
    if (const Status allowed = server::ExportSpec::allow_one(config.options.exports, text);
        !allowed.ok())
      return allowed;
  if (line.state_dir) config.options.state_dir = *line.state_dir;
  config.options.insecure |= line.insecure;
  if (line.no_compress) config.options.session.compress = false;
  line.tls.apply(config.options.tls);
  if (config.options.exports.empty())
    return Status(Code::kUsage,
                  "nothing to serve: no --export, no [[export]] in a configuration "
                  "file");
  return config;
}

// Exports, rights and limits as the file has them now. One that is wrong changes nothing.
void reload(const CommandLine& line, server::Config& config, server::Server& server) {
  CommandLine again = line;
  again.file.find(server::kDefaultConfig);
  if (again.file.path.empty()) return kLog.warning("there is no configuration file to reload");
  auto next = configure(again);
  const Status reloaded = next ? server.reload(next->options) : next.status();
  if (!reloaded.ok())
    return kLog.error("nothing is reloaded: {}{}{}", reloaded.cause(),
                      reloaded.hint().empty() ? "" : "; ", reloaded.hint());
  for (const std::string_view key : server::fixed_changes(config, *next))
    kLog.warning("{}: `{}' changes only when the server is started again", again.file.path, key);
  config.stop_timeout = next->stop_timeout;
  kLog.info("reloaded {}: {} exports", again.file.path, next->options.exports.size());
}

Status run(const CommandLine& line, server::Config config) {
  std::vector<PassedSocket> passed = take_passed_sockets();
  if (config.listen.empty() && passed.empty())
    return Status(Code::kUsage, "--listen is required, as no socket was passed");

  auto reactor = Reactor::create();
  if (!reactor) return reactor.status();
  Status outcome;
  std::unique_ptr<server::Server> server;
  // Before the workers, which inherit the signal mask.
  auto signals = Signals::create(**reactor, [&](int number) {
    if (number == SIGUSR1) return store::log_stats();
    if (number == SIGHUP) return reload(line, config, *server);
    static bool stopping = false;
    if (std::exchange(stopping, true)) return;
    kLog.info("signal {}: stopping", number);
    announce_stopping();
    server->stop(config.stop_timeout, [&](const Status& stopped) {
      outcome = stopped;
      (*reactor)->stop();
    });
  });
  if (!signals) return signals.status();

  harden();
  auto made = server::Server::create(**reactor, config.options);
  if (!made) return made.status();
  server = std::move(made).value();
  for (const transport::Address& address : config.listen)
    if (Status listening = server->listen(address); !listening.ok()) return listening;
  for (PassedSocket& socket : passed)
    if (Status listening = server->listen(std::move(socket)); !listening.ok()) return listening;
  for (const auto& address : server->addresses()) kLog.info("listening at {}", address.to_string());
  const Watchdog watchdog(**reactor);
  announce_ready();
  (*reactor)->run();
  store::log_stats();
  if (outcome.code() == Code::kTimeout) {
    // A thread still waits for the disk: do not wait for it.
    std::fflush(nullptr);
    ::_exit(cli::fail("rmem-server", outcome));
  }
  return outcome;
}

int program(int argc, char** argv) {
  CLI::App app("Exports memory and files to rmemd on other machines.", "rmem-server");
  CommandLine line;
  const std::string state_dir = server::ServerOptions().state_dir;
  app.add_option("--listen", line.listen,
                 "where to listen: tls://0.0.0.0:7070, tcp://127.0.0.1:7070, tcp://[::1]:7070, "
                 "unix:///path; needed unless the service manager passes sockets")
      ->type_name("ADDR")
      ->allow_extra_args(false);
  app.add_option(
         "--export", line.exports,
         "what to serve: mem://1GiB, file:///path, dir:///path; ?size=1GiB creates it, `,ro' makes "
         "it read-only")
      ->type_name("NAME=STORE[,ro]")
      ->allow_extra_args(false);
  app.add_option("--allow", line.allow,
                 "who may use an export over TLS: cn:NAME, dns:HOST, psk:NAME ..., authenticated, "
                 "local; `,ro' for reading only; who is not named then may not")
      ->type_name("NAME=IDENTITY[,ro]")
      ->allow_extra_args(false);
  app.add_option("--state-dir", line.state_dir,
                 "where identities and claims are kept [" + state_dir + "]")
      ->type_name("DIR");
  line.tls.add(app, transport::TlsSide::kServer);
  app.add_flag("--insecure", line.insecure,
               "allow plain TCP off loopback: no encryption, no authentication");
  app.add_flag("--no-compress", line.no_compress, "compress nothing, whatever clients want");
  cli::add_config(app, line.file, server::kDefaultConfig);
  app.set_version_flag("--version", std::string("rmem-server " RMEM_VERSION));
  if (const auto exit_code = cli::parse(app, argc, argv)) return *exit_code;
  line.file.find(server::kDefaultConfig);
  auto config = configure(line);
  if (!config || line.file.check) return cli::fail("rmem-server", config.status());
  return cli::fail("rmem-server", run(line, std::move(config).value()));
}

}  // namespace

int main(int argc, char** argv) { return cli::guard("rmem-server", program, argc, argv); }
