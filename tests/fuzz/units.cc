// SPDX-License-Identifier: MIT
// What people type: sizes, times, UUIDs, names, and the command lines of rmemctl, which
// are understood but not carried out.
#include "base/units.hh"

#include <memory>
#include <sstream>
#include <vector>

#include "base/cli.hh"
#include "base/uuid.hh"
#include "command.hh"
#include "control/options.hh"
#include "fuzz/fuzz.hh"

namespace {

using namespace rmem;

// Nobody reads what is said about mistakes.
struct Quiet {
  std::ostringstream away;
  std::streambuf* const out = std::cout.rdbuf(away.rdbuf());
  std::streambuf* const err = std::cerr.rdbuf(away.rdbuf());
  ~Quiet() {
    std::cout.rdbuf(out);
    std::cerr.rdbuf(err);
  }
};

void command_line(std::string_view text) {
  std::vector<std::string> words = {"rmemctl"};
  for (std::size_t at = 0; at <= text.size() && words.size() < 32;) {
    const auto end = std::min(text.find('\n', at), text.size());
    // A program's arguments have no NUL in them.
    const std::string word(text.substr(at, end - at));
    words.push_back(word.substr(0, word.find('\0')));
    at = end + 1;
  }
  std::vector<const char*> argv;
  for (const std::string& word : words) argv.push_back(word.c_str());

  const Quiet quiet;
  CLI::App program("fuzz", "rmemctl");
  std::string socket;
  program.add_option("--socket", socket);
  program.require_subcommand(1);
  program.fallthrough();
  std::vector<std::unique_ptr<ctl::Command>> commands;
  for (const auto make :
       {ctl::attach_command, ctl::detach_command, ctl::status_command, ctl::sync_command,
        ctl::pull_command, ctl::drop_command, ctl::abort_command, ctl::events_command,
        ctl::salvage_command, ctl::doctor_command})
    commands.push_back(make(program));
  const auto code = cli::parse(program, static_cast<int>(argv.size()), argv.data());
  // --help, or a usage error; never anything else.
  FUZZ_CHECK(!code || *code == 0 || *code == static_cast<int>(Code::kUsage));
}

}  // namespace

FUZZ_TARGET(units) {
  const std::string_view text = fuzz::text(input);
  if (const auto size = parse_size(text)) {
    FUZZ_CHECK(*size <= INT64_MAX);
    const auto again = parse_size(format_size(*size));
    FUZZ_CHECK(again.ok() && *again == *size);
  }
  if (const auto time = parse_duration(text)) FUZZ_CHECK(time->count() >= 0);
  if (const auto uuid = uuid_parse(text)) {
    const auto again = uuid_parse(uuid_to_string(*uuid));
    FUZZ_CHECK(again.ok() && *again == *uuid);
  }
  if (control::valid_region_name(std::string(text)))
    FUZZ_CHECK(text.size() <= 64 && text.find('/') == text.npos && text[0] != '.' &&
               text[0] != '-');
  command_line(text);
}
