// SPDX-License-Identifier: MIT
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <thread>

#include "base/units.hh"
#include "command.hh"
#include "format.hh"

namespace rmem::ctl {
namespace {

using Clock = std::chrono::steady_clock;

// One line that is written over and over, on a terminal only.
class ProgressLine {
 public:
  void show(std::uint64_t done, std::uint64_t length) {
    if (!terminal_ || length == 0) return;
    constexpr std::size_t kWidth = 30;
    const double part = static_cast<double>(done) / static_cast<double>(length);
    const auto full = static_cast<std::size_t>(part * kWidth);
    const double seconds = std::chrono::duration<double>(Clock::now() - begin_).count();
    const auto rate =
        static_cast<std::uint64_t>(static_cast<double>(done) / std::max(seconds, .001));
    std::cerr << fmt::format("\r[{}{}] {:3.0f} %  {} of {}  {}/s\033[K", std::string(full, '#'),
                             std::string(kWidth - full, ' '), 100 * part, human_size(done),
                             human_size(length), human_size(rate))
              << std::flush;
    shown_ = true;
  }
  ~ProgressLine() {
    if (shown_) std::cerr << '\n';
  }

 private:
  const bool terminal_ = ::isatty(STDERR_FILENO) == 1;
  const Clock::time_point begin_ = Clock::now();
  bool shown_ = false;
};

class Pull final : public Command {
 public:
  explicit Pull(CLI::App& app) : Command(app) {
    add_name(app, name_);
    app.add_option_function<std::string>(
           "--range", [this](const std::string& text) { parse_range(text); },
           "only these bytes: 0+64MiB, 1GiB+4096 [all]")
        ->type_name("OFF+LEN");
    app.add_flag("--wait", wait_, "return when it is there; shows how far it is");
  }

  Status run(Context& context) override {
    auto region = find_served(context, name_);
    if (!region.ok()) return region.status();
    const auto reply = region->daemon.call(
        {{"verb", "pull"}, {"name", name_}, {"offset", offset_}, {"length", length_}}, kPatience);
    if (!reply.ok()) return reply.status();
    return wait_ ? wait_for(region->daemon, reply->value("pull", std::uint64_t{0})) : Status();
  }

 private:
  static constexpr std::chrono::seconds kPatience{10};
  static constexpr std::chrono::milliseconds kLook{100};

  void parse_range(const std::string& text) {
    const std::size_t plus = text.find('+');
    const auto offset = parse_size(text.substr(0, plus));
    const auto length = plus == std::string::npos ? offset : parse_size(text.substr(plus + 1));
    if (plus == std::string::npos || !offset.ok() || !length.ok() || *length == 0) {
      throw CLI::ValidationError("--range", "`" + text + "' is not OFFSET+LENGTH, as 0+64MiB");
    }
    offset_ = *offset;
    length_ = *length;
  }

  Status wait_for(Daemon& daemon, std::uint64_t number) const {
    ProgressLine line;
    for (;;) {
      const auto status = daemon.call({{"verb", "status"}}, kPatience);
      if (!status.ok()) return status.status();
      const auto all = status->value("regions", nlohmann::json::array());
      const auto region = std::find_if(
          all.begin(), all.end(), [this](const auto& r) { return r.value("name", "") == name_; });
      if (region == all.end())
        return Status(Code::kNotFound, "region " + name_ + " was detached meanwhile");
      const auto limited = region->value("pulls_limited", std::vector<std::uint64_t>());
      if (std::find(limited.begin(), limited.end(), number) != limited.end()) {
        return Status(
            Code::kFailed,
            "region " + name_ + ": its resident limit is reached; the rest was not pulled",
            "rmemctl drop makes room, unless what is resident is dirty");
      }
      if (region->value("pulls_done", std::uint64_t{0}) >= number) {
        if (length_ != 0) line.show(length_, length_);
        return Status();
      }
      if (region->value("phase", "") == "stranded") {
        return Status(Code::kFailed, "region " + name_ + ": " + region->value("reason", ""),
                      "rmemctl status --why tells more");
      }
      if (const auto pull = region->find("pull"); pull != region->end()) {
        line.show(pull->value("done_bytes", std::uint64_t{0}),
                  pull->value("length", std::uint64_t{0}));
      }
      std::this_thread::sleep_for(kLook);
    }
  }

  std::string name_;
  std::uint64_t offset_ = 0;
  std::uint64_t length_ = 0;  // to the end
  bool wait_ = false;
};

}  // namespace

std::unique_ptr<Command> pull_command(CLI::App& program) {
  return std::make_unique<Pull>(
      *program.add_subcommand("pull", "fetch what is not there, before anybody asks"));
}

}  // namespace rmem::ctl
