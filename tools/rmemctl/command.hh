// SPDX-License-Identifier: MIT
// A verb of rmemctl.
#pragma once

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "base/cli.hh"
#include "base/status.hh"
#include "client.hh"
#include "doctor.hh"

namespace rmem::ctl {

// What verbs work with; the tests put their own in.
struct Context {
  std::string socket;
  std::function<Result<std::unique_ptr<Regions>>()> regions = &kernel_regions;
  Machine machine = this_machine();
  std::ostream* out = nullptr;  // never null when a verb runs
};

class Command {
 public:
  explicit Command(CLI::App& app) : app(app) {}
  virtual ~Command() = default;
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;

  virtual Status run(Context& context) = 0;
  virtual bool json() const { return false; }
  // The exit code of a run() that has succeeded, where the answer may be no.
  virtual int verdict() const { return 0; }

  CLI::App& app;
};

// Each adds its verb with its options to the program.
std::unique_ptr<Command> attach_command(CLI::App& program);
std::unique_ptr<Command> detach_command(CLI::App& program);
std::unique_ptr<Command> status_command(CLI::App& program);
std::unique_ptr<Command> sync_command(CLI::App& program);
std::unique_ptr<Command> pull_command(CLI::App& program);
std::unique_ptr<Command> record_command(CLI::App& program);
std::unique_ptr<Command> limit_command(CLI::App& program);
std::unique_ptr<Command> drop_command(CLI::App& program);
std::unique_ptr<Command> abort_command(CLI::App& program);
std::unique_ptr<Command> events_command(CLI::App& program);
std::unique_ptr<Command> salvage_command(CLI::App& program);
std::unique_ptr<Command> doctor_command(CLI::App& program);

// The whole program; `context.socket` is overwritten. The exit code.
int run(int argc, const char* const* argv, Context& context);

// A region, and the daemon that is to do something with it.
struct Served {
  kchan::RegionInfo info;
  Daemon daemon;
};
// That there is no such region is told first.
Result<Served> find_served(const Context& context, const std::string& name);

// The NAME argument; what is no region name is a usage error.
void add_name(CLI::App& app, std::string& name);

}  // namespace rmem::ctl
