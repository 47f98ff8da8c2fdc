// SPDX-License-Identifier: MIT
// rmem-server: exports stores to rmemd. Reads the command line, assembles the
// objects, nothing else.
#include <csignal>
#include <cstdio>
#include <exception>

#include "base/cli.hh"
#include "base/log.hh"
#include "base/process.hh"
#include "base/signals.hh"
#include "server/server.hh"
#include "store/filter.hh"

namespace {

using namespace rmem;

constexpr auto kPatience = std::chrono::seconds(10);
const log::Source kLog("rmem-server");

// What the kernel does not let us have makes memory pressure riskier, not
// service impossible.
void harden() {
  raise_file_limit();
  if (const Status locked = lock_memory(); !locked.ok())
    kLog.warning("{}; {}", locked.cause(), locked.hint());
  if (const Status flusher = set_io_flusher(); !flusher.ok())
    kLog.warning("{}; {}", flusher.cause(), flusher.hint());
}

Status run(const std::vector<std::string>& listen, const std::vector<std::string>& exports,
           server::ServerOptions options) {
  std::vector<UniqueFd> passed = take_passed_sockets();
  if (listen.empty() && passed.empty())
    return Status(Code::kUsage, "--listen is required, as no socket was passed");
  std::vector<transport::Address> addresses;
  for (const std::string& text : listen) {
    auto address = transport::Address::parse(text);
    if (!address) return address.status();
    addresses.push_back(*std::move(address));
  }
  for (const std::string& text : exports) {
    auto spec = server::ExportSpec::parse(text);
    if (!spec) return spec.status();
    options.exports.push_back(*std::move(spec));
  }

  auto reactor = Reactor::create();
  if (!reactor) return reactor.status();
  Status outcome;
  std::unique_ptr<server::Server> server;
  // Before the workers, which inherit the signal mask.
  auto signals = Signals::create(**reactor, [&](int number) {
    if (number == SIGUSR1) return store::log_stats();
    static bool stopping = false;
    if (std::exchange(stopping, true)) return;
    kLog.info("signal {}: stopping", number);
    announce_stopping();
    server->stop(kPatience, [&](const Status& stopped) {
      outcome = stopped;
      (*reactor)->stop();
    });
  });
  if (!signals) return signals.status();

  harden();
  auto made = server::Server::create(**reactor, options);
  if (!made) return made.status();
  server = std::move(made).value();
  for (const transport::Address& address : addresses)
    if (Status listening = server->listen(address); !listening.ok()) return listening;
  for (UniqueFd& socket : passed)
    if (Status listening = server->listen(std::move(socket)); !listening.ok()) return listening;
  for (const auto& address : server->addresses()) kLog.info("listening at {}", address.to_string());
  const Watchdog watchdog(**reactor);
  announce_ready();
  (*reactor)->run();
  store::log_stats();
  return outcome;
}

int program(int argc, char** argv) {
  CLI::App app("Exports memory and files to rmemd on other machines.", "rmem-server");
  std::vector<std::string> listen;
  std::vector<std::string> exports;
  server::ServerOptions options;
  app.add_option("--listen", listen,
                 "where to listen: tcp://127.0.0.1:7070, tcp://[::1]:7070, unix:///path; needed "
                 "unless the service manager passes sockets")
      ->type_name("ADDR")
      ->allow_extra_args(false);
  app.add_option(
         "--export", exports,
         "what to serve: mem://1GiB, file:///path, dir:///path; ?size=1GiB creates it, `,ro' makes "
         "it read-only")
      ->type_name("NAME=STORE[,ro]")
      ->required()
      ->allow_extra_args(false);
  app.add_option("--state-dir", options.state_dir, "where identities and claims are kept")
      ->type_name("DIR")
      ->capture_default_str();
  app.add_flag("--insecure", options.insecure,
               "allow plain TCP off loopback: no encryption, no authentication");
  app.set_version_flag("--version", std::string("rmem-server " RMEM_VERSION));
  if (const auto exit_code = cli::parse(app, argc, argv)) return *exit_code;
  return cli::fail("rmem-server", run(listen, exports, std::move(options)));
}

}  // namespace

int main(int argc, char** argv) { return cli::guard("rmem-server", program, argc, argv); }
