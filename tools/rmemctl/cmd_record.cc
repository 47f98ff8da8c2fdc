// SPDX-License-Identifier: MIT
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <iostream>
#include <vector>

#include "command.hh"
#include "format.hh"

namespace rmem::ctl {
namespace {

class Record final : public Command {
 public:
  explicit Record(CLI::App& app) : Command(app) {
    add_name(app, name_);
    app.add_flag("--stop", stop_, "keep what was noted, and note no more");
    app.add_option("COMMAND", command_,
                   "after `--': a program to note the touches of, with its arguments")
        ->type_name("");
  }

  Status run(Context& context) override {
    if (stop_ && !command_.empty())
      return Status(Code::kUsage, "--stop goes with no command", "see `rmemctl record --help'");
    auto region = find_served(context, name_);
    if (!region.ok()) return region.status();
    if (!stop_) {
      // It syncs first.
      const auto patience = std::chrono::milliseconds(region->info.sync_timeout_ms) + kPatience;
      if (Status begun =
              region->daemon.call({{"verb", "record"}, {"name", name_}}, patience).status();
          !begun.ok() || command_.empty())
        return begun;
      // What it has touched is worth keeping, however it ended.
      if (Status ran = run_command(); !ran.ok()) {
        (void)end(region->daemon);
        return ran;
      }
    }
    return end(region->daemon);
  }

  // The command's own.
  int verdict() const override { return verdict_; }

 private:
  static constexpr std::chrono::seconds kPatience{30};

  Status end(Daemon& daemon) const {
    const auto kept = daemon.call({{"verb", "record"}, {"name", name_}, {"stop", true}}, kPatience);
    if (!kept.ok()) return kept.status();
    std::cerr << "rmemctl: recorded " << human_size(kept->value("bytes", std::uint64_t{0}))
              << ", ranges: " << kept->value("ranges", std::uint64_t{0}) << "\n";
    return Status();
  }

  Status run_command() {
    std::vector<char*> arguments;
    for (std::string& argument : command_) arguments.push_back(argument.data());
    arguments.push_back(nullptr);
    pid_t child = 0;
    if (const int err =
            ::posix_spawnp(&child, arguments[0], nullptr, nullptr, arguments.data(), environ))
      return Status::from_errno(err, command_[0]);
    int status = 0;
    while (::waitpid(child, &status, 0) < 0)
      if (errno != EINTR) return Status::from_errno(errno, command_[0]);
    verdict_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return Status();
  }

  std::string name_;
  bool stop_ = false;
  std::vector<std::string> command_;
  int verdict_ = 0;
};

}  // namespace

std::unique_ptr<Command> record_command(CLI::App& program) {
  return std::make_unique<Record>(*program.add_subcommand(
      "record", "note in what order a region is touched, for attach --pull recorded"));
}

}  // namespace rmem::ctl
