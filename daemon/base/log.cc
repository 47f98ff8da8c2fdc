// SPDX-License-Identifier: MIT
#include "base/log.hh"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

namespace rmem::log {
namespace {

spdlog::level::level_enum spdlog_level(Level level) {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarning:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
    case Level::kNone:
      break;
  }
  return spdlog::level::off;
}

// sd-daemon(3): what journald makes of "<n>".
const char* priority(Level level) {
  switch (level) {
    case Level::kDebug:
      return "<7>";
    case Level::kInfo:
      return "<6>";
    case Level::kWarning:
      return "<4>";
    case Level::kError:
    case Level::kNone:
      break;
  }
  return "<3>";
}

// systemd.exec(5), JOURNAL_STREAM: is it the journal that reads stderr?
bool journal_reads_stderr() {
  const char* stream = std::getenv("JOURNAL_STREAM");
  struct stat st = {};
  if (!stream || ::fstat(STDERR_FILENO, &st) != 0) return false;
  return stream == fmt::format("{}:{}", st.st_dev, st.st_ino);
}

spdlog::logger& logger() {
  // Never destroyed: threads may log while the program ends.
  static spdlog::logger* const instance = [] {
    auto* made = new spdlog::logger("rmem", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_pattern("%v");
    made->set_level(spdlog::level::info);
    made->flush_on(spdlog::level::debug);
    return made;
  }();
  return *instance;
}

}  // namespace

void set_level(Level level) { logger().set_level(spdlog_level(level)); }

bool enabled(Level level) { return logger().should_log(spdlog_level(level)); }

void write(Level level, std::string_view prefix, std::string_view message) {
  static const bool journal = journal_reads_stderr();
  logger().log(spdlog_level(level), "{}{}: {}", journal ? priority(level) : "", prefix, message);
}

}  // namespace rmem::log
