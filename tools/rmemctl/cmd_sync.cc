// SPDX-License-Identifier: MIT
#include "command.hh"

namespace rmem::ctl {
namespace {

class Sync final : public Command {
 public:
  explicit Sync(CLI::App& app) : Command(app) { add_name(app, name_); }

  Status run(Context& context) override {
    auto region = find_served(context, name_);
    if (!region.ok()) return region.status();
    const auto patience = std::chrono::milliseconds(region->info.sync_timeout_ms) + kMargin;
    return region->daemon.call({{"verb", "sync"}, {"name", name_}}, patience).status();
  }

 private:
  // The kernel ends a sync by the region's sync timeout; a daemon that has not
  // answered this much later is silent.
  static constexpr std::chrono::seconds kMargin{5};

  std::string name_;
};

}  // namespace

std::unique_ptr<Command> sync_command(CLI::App& program) {
  return std::make_unique<Sync>(
      *program.add_subcommand("sync", "return when everything written is durable"));
}

}  // namespace rmem::ctl
