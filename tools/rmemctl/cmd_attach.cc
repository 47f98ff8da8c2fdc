// SPDX-License-Identifier: MIT
#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#include <charconv>

#include "bind.hh"
#include "command.hh"
#include "control/options.hh"
#include "linux/rmem.h"

namespace rmem::ctl {
namespace {

bool number(const std::string& text, std::uint32_t& out, int base = 10) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out, base);
  return error == std::errc() && end == text.data() + text.size();
}

// USER[:GROUP], by name or number; without GROUP the user's own.
Status parse_owner(const std::string& text, std::uint32_t& uid, std::uint32_t& gid) {
  const std::size_t colon = text.find(':');
  const std::string user = text.substr(0, colon);
  const passwd* pw = ::getpwnam(user.c_str());
  if (pw) {
    uid = pw->pw_uid;
    gid = pw->pw_gid;
  } else if (number(user, uid)) {
    pw = ::getpwuid(uid);
    gid = pw ? pw->pw_gid : uid;
  } else {
    return Status(Code::kUsage, "--owner: no user `" + user + "'");
  }
  if (colon == std::string::npos) return Status();
  const std::string name = text.substr(colon + 1);
  if (const group* gr = ::getgrnam(name.c_str())) {
    gid = gr->gr_gid;
  } else if (!number(name, gid)) {
    return Status(Code::kUsage, "--owner: no group `" + name + "'");
  }
  return Status();
}

class Attach final : public Command {
 public:
  explicit Attach(CLI::App& app) : Command(app) {
    add_name(app, options_.name);
    app.add_option("URI", options_.source,
                   "rmem://host:port/export, rmem+unix:///export?socket=/path, file:///path or "
                   "dir:///path")
        ->required()
        ->type_name("");
    cli::add_size(app, "--chunk", chunk_, "unit of transfer, 4KiB to 2MiB [256KiB]");
    app.add_flag("--read-only", options_.read_only, "refuse writing; any number may attach so");
    app.add_option("--owner", owner_, "of node and file [the caller]")->type_name("USER[:GROUP]");
    app.add_option("--mode", mode_, "of node and file [0600]")->type_name("OCTAL");
    app.add_option("--bind", bind_, "bind-mount the region's file over PATH")->type_name("PATH");
    app.add_option("--on-loss", options_.on_loss,
                   "after the fault timeout: wait, error or kill [wait]")
        ->type_name("POLICY");
    cli::add_size(app, "--resident-limit", options_.resident_limit,
                  "keep no more in memory; clean pages are evicted [none]");
    cli::add_size(app, "--dirty-limit", options_.dirty_limit,
                  "let no more be written and not durable; then writing waits [none]");
    cli::add_size(app, "--push-threshold", options_.push_threshold,
                  "push as soon as so much has been written since the last push [none]");
    cli::add_duration(app, "--fault-timeout", options_.fault_timeout,
                      "before --on-loss applies [30s]");
    cli::add_duration(app, "--sync-timeout", options_.sync_timeout,
                      "before sync, fsync and msync fail [30s]");
    cli::add_duration(app, "--push-interval", options_.push_interval,
                      "between pushes of what was written [5s]");
    app.add_option("--pull", options_.pull,
                   "fetch in the background: none, all, or recorded, what `rmemctl record' has "
                   "noted, in that order [none]")
        ->type_name("WHAT");
    cli::add_size(app, "--pull-rate", options_.pull_rate,
                  "bytes a second that may be pulled [no limit]");
    cli::add_size(app, "--push-rate", options_.push_rate,
                  "bytes a second that may be pushed while nobody waits [no limit]");
    app.add_flag("--take-over", options_.take_over, "be the writer even if another one is");
    app.add_flag("--insecure", options_.insecure, "allow plain TCP to another host");
  }

  Status run(Context& context) override {
    if (Status s = complete(); !s.ok()) return s;
    auto regions = context.regions();
    if (!regions.ok()) return regions.status();
    auto daemon = Daemon::connect(context.socket);
    if (!daemon.ok()) return daemon.status();
    auto request = control::to_json(options_);
    for (const std::string& member : left_out()) request.erase(member);
    request["verb"] = "attach";
    auto reply = daemon->call(request, kPatience);
    if (!reply.ok()) return reply.status();
    if (options_.bind.empty()) return Status();

    Status bound = bind_region(options_.name, options_.bind);
    if (!bound.ok() && reply->value("made", false)) {
      // As if nothing had happened.
      (void)daemon->call({{"verb", "detach"}, {"name", options_.name}},
                         options_.sync_timeout + kPatience);
    }
    return bound;
  }

 private:
  // Resolving, connecting, opening and claiming, with the daemon's own limits.
  static constexpr std::chrono::seconds kPatience{30};

  // What is for the daemon to say: who calls, and its own defaults.
  std::vector<std::string> left_out() const {
    std::vector<std::string> members;
    if (owner_.empty()) members = {"uid", "gid"};
    for (const auto& [option, member] : {std::pair{"--chunk", "chunk"},
                                         {"--on-loss", "on_loss"},
                                         {"--resident-limit", "resident_limit"},
                                         {"--dirty-limit", "dirty_limit"},
                                         {"--push-threshold", "push_threshold"},
                                         {"--fault-timeout", "fault_timeout_ms"},
                                         {"--sync-timeout", "sync_timeout_ms"},
                                         {"--push-interval", "push_interval_ms"},
                                         {"--pull", "pull"},
                                         {"--pull-rate", "pull_rate"},
                                         {"--push-rate", "push_rate"}})
      if (app.count(option) == 0) members.emplace_back(member);
    return members;
  }

  // The rest of the options, as far as they can be judged here.
  Status complete() {
    if (chunk_ > UINT32_MAX) chunk_ = UINT32_MAX;  // refused below, with its reason
    options_.chunk = static_cast<std::uint32_t>(chunk_);
    if (!number(mode_, options_.mode, 8) || options_.mode > 0777) {
      return Status(Code::kUsage, "--mode: `" + mode_ + "' is not octal permission bits",
                    "for instance 0640");
    }
    if (!owner_.empty()) {
      if (Status s = parse_owner(owner_, options_.uid, options_.gid); !s.ok()) return s;
    }
    if (!bind_.empty()) {
      auto target = bind_target(bind_);
      if (!target.ok()) return target.status();
      options_.bind = target->path;
      options_.bind_created = !target->exists;
    }
    control::AttachOptions judged = options_;
    if (app.count("--chunk") == 0) judged.chunk = RMEM_CHUNK_MIN;  // the daemon may say another
    if (Status s = control::validate(judged); !s.ok()) return s;
    if (!bind_.empty() && ::geteuid() != 0) {
      return Status(Code::kPermission, "--bind: only root may mount", "run as root");
    }
    return Status();
  }

  control::AttachOptions options_;
  std::uint64_t chunk_ = options_.chunk;
  std::string owner_;
  std::string mode_ = "0600";
  std::string bind_;
};

}  // namespace

std::unique_ptr<Command> attach_command(CLI::App& program) {
  return std::make_unique<Attach>(
      *program.add_subcommand("attach", "make a region out of a store and serve it"));
}

}  // namespace rmem::ctl
