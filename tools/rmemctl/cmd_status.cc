// SPDX-License-Identifier: MIT
#include <unistd.h>

#include "command.hh"
#include "control/options.hh"
#include "format.hh"

namespace rmem::ctl {
namespace {

// The kernel's truth: works without a daemon. What a daemon has to add is left
// out where it does not answer at once.
class ShowStatus final : public Command {
 public:
  explicit ShowStatus(CLI::App& app) : Command(app) {
    add_name(app, name_);
    app.get_option("NAME")->required(false);
    auto* json = app.add_flag("--json", json_, "for programs");
    app.add_flag("--why", why_, "why each is in its state, and what can be done")->excludes(json);
  }

  bool json() const override { return json_; }

  Status run(Context& context) override {
    auto regions = context.regions();
    if (!regions.ok()) return regions.status();
    std::vector<kchan::RegionInfo> shown;
    if (name_.empty()) {
      auto list = (*regions)->list();
      if (!list.ok()) return list.status();
      shown = std::move(*list);
    } else {
      auto one = (*regions)->get(name_);
      if (!one.ok()) return one.status();
      shown.push_back(std::move(*one));
    }
    if (why_) {
      for (const auto& r : shown) *context.out << status_why(r);
      if (!shown.empty()) return Status();
    }
    *context.out << (json_ ? status_json(shown, shown.empty() ? nullptr : daemon_status(context))
                           : status_table(shown, ::geteuid() == 0))
                 << std::flush;
    return Status();
  }

 private:
  static constexpr std::chrono::milliseconds kPatience{250};

  static nlohmann::json daemon_status(const Context& context) {
    auto daemon = Daemon::connect(context.socket);
    if (!daemon.ok()) return nullptr;
    auto reply = daemon->call({{"verb", "status"}}, kPatience);
    return reply.ok() ? std::move(*reply) : nlohmann::json();
  }

  std::string name_;
  bool json_ = false;
  bool why_ = false;
};

}  // namespace

std::unique_ptr<Command> status_command(CLI::App& program) {
  return std::make_unique<ShowStatus>(
      *program.add_subcommand("status", "state and counters of one region or of all"));
}

}  // namespace rmem::ctl
