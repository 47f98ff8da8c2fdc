// SPDX-License-Identifier: MIT
// rmem-bench: what a page of remote memory costs, by rmem and by other ways, in
// one run. Reads the command line, assembles the peers, nothing else.
#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <functional>
#include <iostream>

#include "base/cli.hh"
#include "base/process.hh"
#include "control/options.hh"
#include "fuse_mount.hh"
#include "link.hh"
#include "measure.hh"
#include "report.hh"

namespace {

using namespace rmem;
using namespace rmem::bench;

struct Options {
  std::string file;
  std::string listen = "tcp://127.0.0.1:7071";
  std::string server;
  std::vector<std::string> peers;
  std::vector<std::string> files;  // NAME=PATH
  std::vector<std::string> regions;
  std::vector<std::string> pulled_regions;
  std::string socket = control::kDefaultSocket;
  std::vector<std::string> cases;
  std::string tsv;
  bool json = false;
  Plan plan;
  std::string directory;
  unsigned threads = 4;
  std::uint64_t readahead = 128 << 10;
};

struct Named {
  const char* name;
  std::function<Result<std::unique_ptr<Peer>>(const transport::Address&, std::uint64_t)> make;
};

Named uffd(const char* name, UffdOptions options) {
  return {name, [=](auto& server, auto size) { return uffd_peer(name, server, size, options); }};
}

// 4 handlers, as one would have for a program with threads of its own; and 1,
// which one thread that waits for one page at a time is better off with.
const Named kPeers[] = {
    {"tcp", tcp_peer},
    uffd("uffd-4k", {}),
    uffd("uffd-4k-1", {.handlers = 1}),
    uffd("uffd-64k", {.unit = 64 << 10}),
    uffd("uffd-bg", {.unit = 64 << 10, .fill = true}),
    {"anon", [](auto&, auto size) { return anonymous_peer(size); }},
    {"tmpfs", [](auto&, auto size) { return tmpfs_peer(size); }},
};

std::vector<std::string> peer_names() {
  std::vector<std::string> names;
  for (const Named& peer : kPeers) names.emplace_back(peer.name);
  return names;
}

std::vector<std::string> case_names() {
  std::vector<std::string> names;
  for (const Case which : kCases) names.emplace_back(case_name(which));
  return names;
}

// A server of our own, which ends with us. It is a process, as a real one is.
Status start_server(transport::Address& address, std::uint64_t size) {
  const auto listener = listen_at(address);
  if (!listener) return listener.status();
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return Status::from_errno(errno, "pipe");
  const UniqueFd told(ends[0]);
  UniqueFd tells(ends[1]);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) return Status::from_errno(errno, "fork");
  if (child > 0) {
    // It is busy until its bytes are there.
    tells.reset();
    char ready;
    return ::read(told.get(), &ready, 1) == 1 ? Status() : Status::from_errno(errno, "server");
  }
  (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(0);
  ::_exit(
      cli::fail("rmem-bench", serve(*listener, size, [&] { (void)!::write(tells.get(), "", 1); })));
}

Status run(Options& options) {
  transport::Address address{.host = "127.0.0.1", .port = 0};
  if (options.server.empty()) {
    if (Status started = start_server(address, options.plan.size); !started.ok()) return started;
  } else {
    auto parsed = transport::Address::parse(options.server);
    if (!parsed) return parsed.status();
    address = std::move(parsed).value();
  }

  std::vector<std::unique_ptr<Peer>> peers;
  const auto add = [&](Result<std::unique_ptr<Peer>> peer) {
    if (!peer) return peer.status();
    peers.push_back(std::move(peer).value());
    return Status();
  };
  for (const Named& named : kPeers) {
    if (std::find(options.peers.begin(), options.peers.end(), named.name) == options.peers.end())
      continue;
    if (Status s = add(named.make(address, options.plan.size)); !s.ok()) return s;
  }
  for (const std::string& file : options.files) {
    const std::size_t equals = file.find('=');
    if (equals == std::string::npos)
      return Status(Code::kUsage, "--file: `" + file + "' is not NAME=PATH");
    auto peer = file_peer(file.substr(0, equals), file.substr(equals + 1), options.plan.size);
    if (Status s = add(std::move(peer)); !s.ok()) return s;
  }
  for (const std::string& path : options.regions)
    if (Status s = add(rmem_peer(path, options.plan.size)); !s.ok()) return s;
  for (const std::string& path : options.pulled_regions)
    if (Status s = add(rmem_peer(path, options.plan.size, options.socket)); !s.ok()) return s;

  for (const Case which : kCases)
    if (std::find(options.cases.begin(), options.cases.end(), case_name(which)) !=
        options.cases.end())
      options.plan.cases.push_back(which);

  const auto report = measure(options.plan, peers);
  if (!report) return report.status();
  if (!options.tsv.empty()) {
    std::ofstream file(options.tsv);
    file << tsv(*report);
    if (!file.flush()) return Status(Code::kFailed, "cannot write " + options.tsv);
  }
  std::cout << (options.json ? json(*report) : table(*report)) << std::flush;
  return Status();
}

Status serve_forever(const Options& options) {
  auto address = transport::Address::parse(options.listen);
  if (!address) return address.status();
  const auto listener = listen_at(*address);
  if (!listener) return listener.status();
  return serve(*listener, options.plan.size, announce_ready);
}

Status fuse(const Options& options) {
#ifdef RMEM_BENCH_FUSE
  auto server = transport::Address::parse(options.server);
  if (!server) return server.status();
  return mount_fuse(options.directory,
                    {.server = std::move(server).value(),
                     .size = options.plan.size,
                     .threads = options.threads,
                     .readahead = options.readahead},
                    announce_ready);
#else
  return Status(Code::kFailed, options.directory + ": this build is without FUSE",
                "make deps installs libfuse3-dev; then build again");
#endif
}

void add_size(CLI::App& app, Options& options) {
  cli::add_size(app, "--size", options.plan.size, "bytes of everything measured [32MiB]");
}

Status act(const CLI::App& app, Options& options) {
  const std::uint64_t size = options.plan.size;
  if (size == 0 || size % kPage != 0)
    return Status(Code::kUsage, "--size: a multiple of 4KiB is needed");
  if (app.got_subcommand("make")) return make_pattern_file(options.file, size);
  if (app.got_subcommand("serve")) return serve_forever(options);
  if (app.got_subcommand("fuse")) return fuse(options);
  return run(options);
}

int program(int argc, char** argv) {
  Options options;
  options.peers = peer_names();
  options.cases = case_names();
  CLI::App app(
      "Measures what a page of remote memory costs: by a region of rmem, by userfaultfd, by raw "
      "TCP "
      "and locally, side by side. Every page is checked, off the clock.",
      "rmem-bench");
  app.set_version_flag("--version", "rmem-bench " RMEM_VERSION);
  app.require_subcommand(1);

  CLI::App& runs = *app.add_subcommand("run", "measure");
  runs.add_option("--server", options.server,
                  "where `rmem-bench serve' listens, for the peers that fetch; else one of its own "
                  "on loopback")
      ->type_name("ADDR");
  runs.add_option("--region", options.regions,
                  "node or file of a region that holds what `rmem-bench make' makes")
      ->type_name("PATH")
      ->allow_extra_args(false);
  runs.add_option("--pulled-region", options.pulled_regions,
                  "the same, while all of it is pulled in the background")
      ->type_name("PATH")
      ->allow_extra_args(false);
  runs.add_option("--socket", options.socket, "control socket of the rmemd that pulls")
      ->type_name("PATH")
      ->capture_default_str();
  runs.add_option("--file", options.files,
                  "a file or block device that holds what `rmem-bench make' makes")
      ->type_name("NAME=PATH")
      ->allow_extra_args(false);
  runs.add_option("--peer", options.peers,
                  "of those that need no file and no region, only these; "
                  "`none' for none [all]")
      ->check(CLI::IsMember(peer_names()) | CLI::IsMember({"none"}))
      ->allow_extra_args(false);
  runs.add_option("--case", options.cases, "only these [all]")
      ->check(CLI::IsMember(case_names()))
      ->allow_extra_args(false);
  runs.add_option("--rounds", options.plan.rounds, "rounds that count; figures are medians")
      ->check(CLI::Range(1u, 10000u))
      ->capture_default_str();
  runs.add_flag("!--no-warm-up", options.plan.warm_up, "without the round that does not count");
  runs.add_option("--seed", options.plan.seed, "of the random pages")->capture_default_str();
  runs.add_option("--tsv", options.tsv, "write the figures there, too, tab-separated")
      ->type_name("FILE");
  runs.add_flag("--json", options.json, "JSON instead of a table");
  add_size(runs, options);

  CLI::App& serves = *app.add_subcommand("serve", "the other end of the peers that fetch");
  serves.add_option("--listen", options.listen, "where to listen")
      ->type_name("ADDR")
      ->capture_default_str();
  add_size(serves, options);

  CLI::App& fuses = *app.add_subcommand("fuse", "mount a file system with the server's bytes");
  fuses.add_option("DIRECTORY", options.directory, "where; the file is `pattern' in it")
      ->required()
      ->type_name("");
  fuses.add_option("--server", options.server, "where `rmem-bench serve' listens")
      ->required()
      ->type_name("ADDR");
  fuses.add_option("--threads", options.threads, "each with a connection of its own")
      ->check(CLI::Range(1u, 64u))
      ->capture_default_str();
  cli::add_size(fuses, "--readahead", options.readahead, "bytes [128KiB]");
  add_size(fuses, options);

  CLI::App& makes = *app.add_subcommand("make", "a file for rmem-server to export");
  makes.add_option("FILE", options.file, "is overwritten")->required()->type_name("");
  add_size(makes, options);

  if (const auto code = cli::parse(app, argc, argv)) return *code;
  return cli::fail("rmem-bench", act(app, options), options.json);
}

}  // namespace

int main(int argc, char** argv) { return cli::guard("rmem-bench", program, argc, argv); }
