// SPDX-License-Identifier: MIT
#include "command.hh"
#include "doctor.hh"

namespace rmem::ctl {
namespace {

class Doctor final : public Command {
 public:
  explicit Doctor(CLI::App& app) : Command(app) { app.add_flag("--json", json_, "for programs"); }

  bool json() const override { return json_; }
  int verdict() const override { return verdict_; }

  Status run(Context& context) override {
    const std::vector<Check> checks = examine(context.machine, context.socket);
    for (const Check& check : checks) {
      if (check.verdict == Verdict::kFinding) verdict_ = static_cast<int>(Code::kFailed);
    }
    *context.out << (json_ ? checks_json(checks) : checks_text(checks)) << std::flush;
    return Status();
  }

 private:
  bool json_ = false;
  int verdict_ = 0;
};

}  // namespace

std::unique_ptr<Command> doctor_command(CLI::App& program) {
  return std::make_unique<Doctor>(
      *program.add_subcommand("doctor", "look for what is wrong with this machine"));
}

}  // namespace rmem::ctl
