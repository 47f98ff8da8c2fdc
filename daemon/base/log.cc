// SPDX-License-Identifier: MIT
#include "base/log.hh"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

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
  }
  return spdlog::level::err;
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
      return "<3>";
  }
  return "<3>";
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
  static const bool terminal = ::isatty(STDERR_FILENO) == 1;
  logger().log(spdlog_level(level), "{}{}: {}", terminal ? "" : priority(level), prefix, message);
}

}  // namespace rmem::log
