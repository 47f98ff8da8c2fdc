// SPDX-License-Identifier: MIT
#include "command.hh"

namespace rmem::ctl {
namespace {

// By the kernel alone: whoever hangs on a daemon does not need it for this.
class Abort final : public Command {
 public:
  explicit Abort(CLI::App& app) : Command(app) { add_name(app, name_); }

  Status run(Context& context) override {
    auto regions = context.regions();
    if (!regions.ok()) return regions.status();
    const auto info = (*regions)->get(name_);
    if (!info.ok()) return info.status();
    return (*regions)->abort(info->id);
  }

 private:
  std::string name_;
};

}  // namespace

std::unique_ptr<Command> abort_command(CLI::App& program) {
  return std::make_unique<Abort>(
      *program.add_subcommand("abort", "give whoever waits for the region an error now"));
}

}  // namespace rmem::ctl
