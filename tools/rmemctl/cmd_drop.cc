// SPDX-License-Identifier: MIT
#include "command.hh"

namespace rmem::ctl {
namespace {

class Drop final : public Command {
 public:
  explicit Drop(CLI::App& app) : Command(app) { add_name(app, name_); }

  Status run(Context& context) override {
    auto region = find_served(context, name_);
    if (!region.ok()) return region.status();
    return region->daemon.call({{"verb", "drop"}, {"name", name_}}, kPatience).status();
  }

 private:
  static constexpr std::chrono::seconds kPatience{30};

  std::string name_;
};

}  // namespace

std::unique_ptr<Command> drop_command(CLI::App& program) {
  return std::make_unique<Drop>(
      *program.add_subcommand("drop", "evict every clean page; what is dirty stays"));
}

}  // namespace rmem::ctl
