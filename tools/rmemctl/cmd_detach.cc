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
  explicit Detach(CLI::App& app) : Command(app) {
    add_name(app, name_);
    app.add_flag("--force", force_,
                 "even if it is in use or cannot be pushed: users get errors, the rest is lost");
  }

  Status run(Context& context) override {
    auto regions = context.regions();
    if (!regions.ok()) return regions.status();
    const auto info = (*regions)->get(name_);
    if (!info.ok()) return info.status();

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
    auto lost = by_daemon(context, *info);
    if (!lost.ok() && force_ && lost.status().code() != Code::kPermission) {
      lost = (*regions)->unmake_by_force(info->id);
      if (lost.ok() && !info->read_only()) {
        std::cerr << "rmemctl: warning: " << info->source
                  << " may still count this host as its writer; the next attach then needs "
                     "--take-over\n";
      }
    }
    if (!lost.ok()) return lost.status();
    Status unbound = bind.empty() ? Status() : unbind(bind, mounted, bind_created);
    if (*lost == 0) return unbound;
    return Status(Code::kFailed, "region " + name_ + " is unmade, lost_bytes=" +
                                     std::to_string(*lost) + " were never durable");
  }

 private:
  // The bytes that were lost: 0 unless by force.
  Result<std::uint64_t> by_daemon(const Context& context, const kchan::RegionInfo& info) const {
    auto daemon = Daemon::connect(context.socket);
    if (!daemon.ok()) return daemon.status();
    const auto patience = std::chrono::milliseconds(info.sync_timeout_ms) + kMargin;
    nlohmann::json request = {{"verb", "detach"}, {"name", name_}};
    if (force_) request["force"] = true;
    const auto reply = daemon->call(request, patience);
    if (!reply.ok()) return reply.status();
    if (const auto warning = reply->value("warning", nlohmann::json());
        warning.is_string() && !warning.get_ref<const std::string&>().empty()) {
      std::cerr << "rmemctl: warning: " << warning.get<std::string>() << '\n';
    }
    const auto lost = reply->value("lost_bytes", nlohmann::json());
    return lost.is_number_unsigned() ? lost.get<std::uint64_t>() : 0;
  }

  // Beyond the region's own sync timeout: to unmake it and to release the store.
  static constexpr std::chrono::seconds kMargin{10};

  std::string name_;
  bool force_ = false;
};

}  // namespace

std::unique_ptr<Command> detach_command(CLI::App& program) {
  return std::make_unique<Detach>(
      *program.add_subcommand("detach", "push what was written and unmake the region"));
}

}  // namespace rmem::ctl
