// SPDX-License-Identifier: MIT
#include "command.hh"
#include "control/options.hh"

namespace rmem::ctl {
namespace {

constexpr std::unique_ptr<Command> (*kCommands[])(CLI::App&) = {
    attach_command, detach_command, status_command, sync_command,   pull_command,    record_command,
    limit_command,  drop_command,   abort_command,  events_command, salvage_command, doctor_command,
};

}  // namespace

void add_name(CLI::App& app, std::string& name) {
  app.add_option("NAME", name, "the region")
      ->required()
      ->type_name("")
      ->check([](const std::string& text) -> std::string {
        if (control::valid_region_name(text)) return {};
        return "`" + text +
               "' is not a region name: letters, digits, `_', `.' and `-', at most "
               "64, the first a letter or digit";
      });
}

Result<Served> find_served(const Context& context, const std::string& name) {
  auto regions = context.regions();
  if (!regions.ok()) return regions.status();
  auto info = (*regions)->get(name);
  if (!info.ok()) return info.status();
  auto daemon = Daemon::connect(context.socket);
  if (!daemon.ok()) return daemon.status();
  return Served{std::move(*info), std::move(*daemon)};
}

int run(int argc, const char* const* argv, Context& context) {
  CLI::App program("Maps memory of other machines: attaches, watches and detaches regions.",
                   "rmemctl");
  context.socket = control::kDefaultSocket;
  program
      .add_option("--socket", context.socket,
                  std::string("control socket of rmemd [") + control::kDefaultSocket + "]")
      ->envname("RMEM_SOCKET")
      ->type_name("PATH");
  program.set_version_flag("--version", "rmemctl " RMEM_VERSION);
  program.require_subcommand(1);
  program.fallthrough();

  std::vector<std::unique_ptr<Command>> commands;
  for (const auto make : kCommands) commands.push_back(make(program));
  if (const auto code = cli::parse(program, argc, argv)) return *code;
  for (const auto& command : commands) {
    if (command->app.parsed()) {
      const Status done = command->run(context);
      return done.ok() ? command->verdict() : cli::fail("rmemctl", done, command->json());
    }
  }
  return static_cast<int>(Code::kUsage);
}

}  // namespace rmem::ctl
