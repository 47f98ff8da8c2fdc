// SPDX-License-Identifier: MIT
#include <unistd.h>

#include <iostream>

#include "bind.hh"
#include "command.hh"
#include "control/options.hh"

namespace rmem::ctl {
namespace {

class Detach final : public Command {
 public:
  explicit Detach(CLI::App& app) : Command(app) { add_name(app, name_); }

  Status run(Context& context) override {
    auto regions = context.regions();
    if (!regions.ok()) return regions.status();
    const auto info = (*regions)->get(name_);
    if (!info.ok()) return info.status();
    auto daemon = Daemon::connect(context.socket);
    if (!daemon.ok()) return daemon.status();

    // Where it was bound is noted in the kernel, so that a daemon may have been
    // restarted since.
    std::string bind;
    bool bind_created = false;
    if (const auto notes = control::Notes::from_blob(info->blob); notes.ok()) {
      bind = notes->options.bind;
      bind_created = notes->options.bind_created;
    }
    if (!bind.empty() && ::geteuid() != 0) {
      return Status(Code::kPermission, "region " + name_ + " is bound to " + bind, "run as root");
    }
    const bool mounted = !bind.empty() && is_bound(name_, bind);
    const auto patience = std::chrono::milliseconds(info->sync_timeout_ms) + kMargin;
    const auto reply = daemon->call({{"verb", "detach"}, {"name", name_}}, patience);
    if (!reply.ok()) return reply.status();
    if (const auto warning = reply->value("warning", nlohmann::json());
        warning.is_string() && !warning.get_ref<const std::string&>().empty()) {
      std::cerr << "rmemctl: warning: " << warning.get<std::string>() << '\n';
    }
    return bind.empty() ? Status() : unbind(bind, mounted, bind_created);
  }

 private:
  // Beyond the region's own sync timeout: to unmake it and to release the store.
  static constexpr std::chrono::seconds kMargin{10};

  std::string name_;
};

}  // namespace

std::unique_ptr<Command> detach_command(CLI::App& program) {
  return std::make_unique<Detach>(
      *program.add_subcommand("detach", "push what was written and unmake the region"));
}

}  // namespace rmem::ctl
