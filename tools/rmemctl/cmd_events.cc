// SPDX-License-Identifier: MIT
#include <poll.h>
#include <signal.h>

#include <cerrno>
#include <iostream>

#include "command.hh"
#include "format.hh"

namespace rmem::ctl {
namespace {

volatile sig_atomic_t interrupted = 0;

class Events final : public Command {
 public:
  explicit Events(CLI::App& app) : Command(app) {
    app.add_flag("--json", json_, "one object a line, for programs");
  }

  bool json() const override { return json_; }

  Status run(Context& context) override {
    auto stream = kchan::EventStream::open();
    if (!stream.ok()) return stream.status();

    // Interrupting is the way to end it, hence no failure. The signals arrive
    // while waiting only, so that none is missed and no line is torn.
    struct sigaction action = {};
    action.sa_handler = [](int) { interrupted = 1; };
    ::sigaction(SIGINT, &action, nullptr);
    ::sigaction(SIGTERM, &action, nullptr);
    sigset_t blocked, waiting;
    ::sigemptyset(&blocked);
    ::sigaddset(&blocked, SIGINT);
    ::sigaddset(&blocked, SIGTERM);
    ::sigprocmask(SIG_BLOCK, &blocked, &waiting);

    while (!interrupted && context.out->good()) {
      pollfd p{(*stream)->fd(), POLLIN, 0};
      if (::ppoll(&p, 1, nullptr, &waiting) < 0) {
        if (errno == EINTR) continue;
        return Status::from_errno(errno, "waiting for events");
      }
      auto batch = (*stream)->take();
      if (!batch.ok()) return batch.status();
      if (batch->lost) say_lost(*context.out);
      for (const auto& event : batch->events) {
        *context.out << (json_ ? event_json(event) : event_text(event)) << std::flush;
      }
    }
    return Status();
  }

 private:
  void say_lost(std::ostream& out) {
    if (json_) {
      out << R"({"schema":1,"event":"lost"})" << std::endl;
    } else {
      std::cerr << "rmemctl: some events were lost\n";
    }
  }

  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> events_command(CLI::App& program) {
  return std::make_unique<Events>(
      *program.add_subcommand("events", "follow what happens to regions until interrupted"));
}

}  // namespace rmem::ctl
