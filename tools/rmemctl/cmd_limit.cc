// SPDX-License-Identifier: MIT
#include "command.hh"

namespace rmem::ctl {
namespace {

class Limit final : public Command {
 public:
  explicit Limit(CLI::App& app) : Command(app) {
    add_name(app, name_);
    pull_ = cli::add_size(app, "--pull-rate", pull_rate_,
                          "bytes a second that may be pulled; 0: no limit");
    push_ = cli::add_size(app, "--push-rate", push_rate_,
                          "bytes a second that may be pushed while nobody waits; 0: no limit");
  }

  Status run(Context& context) override {
    nlohmann::json request = {{"verb", "limit"}, {"name", name_}};
    if (pull_->count() != 0) request["pull_rate"] = pull_rate_;
    if (push_->count() != 0) request["push_rate"] = push_rate_;
    if (request.size() == 2)
      return Status(Code::kUsage, "limit what?", "--pull-rate or --push-rate, or both");
    auto region = find_served(context, name_);
    if (!region.ok()) return region.status();
    return region->daemon.call(request, kPatience).status();
  }

 private:
  static constexpr std::chrono::seconds kPatience{30};

  std::string name_;
  std::uint64_t pull_rate_ = 0;
  std::uint64_t push_rate_ = 0;
  CLI::Option* pull_;
  CLI::Option* push_;
};

}  // namespace

std::unique_ptr<Command> limit_command(CLI::App& program) {
  return std::make_unique<Limit>(
      *program.add_subcommand("limit", "bound what goes in the background, from now on"));
}

}  // namespace rmem::ctl
