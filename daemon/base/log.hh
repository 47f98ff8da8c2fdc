// SPDX-License-Identifier: MIT
// Log lines on stderr: "pager data cookie=17: text".
#pragma once

#include <fmt/core.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace rmem::log {

// What each level is for: error = somebody must act; warning = it works, but
// not as it should; info = a state change an operator wants to know; debug =
// everything else. None is for tests that provoke what is logged.
enum class Level { kDebug, kInfo, kWarning, kError, kNone };

// Lines below `level` are dropped; kInfo until told otherwise. For the journal
// each line starts with its priority, "<6>".
void set_level(Level level);
bool enabled(Level level);

// Writes one line. Thread-safe; the message must not contain secrets.
void write(Level level, std::string_view prefix, std::string_view message);

// Who speaks: a component, and the region or peer it speaks about.
class Source {
 public:
  explicit Source(std::string_view component, std::string_view subject = {}) : prefix_(component) {
    if (!subject.empty()) (prefix_ += ' ') += subject;
  }

  // The same speaker about one request.
  Source about(std::uint64_t cookie) const {
    Source one = *this;
    one.prefix_ += fmt::format(" cookie={}", cookie);
    return one;
  }

  template <class... Args>
  void debug(fmt::format_string<Args...> text, Args&&... args) const {
    say(Level::kDebug, text, std::forward<Args>(args)...);
  }
  template <class... Args>
  void info(fmt::format_string<Args...> text, Args&&... args) const {
    say(Level::kInfo, text, std::forward<Args>(args)...);
  }
  template <class... Args>
  void warning(fmt::format_string<Args...> text, Args&&... args) const {
    say(Level::kWarning, text, std::forward<Args>(args)...);
  }
  template <class... Args>
  void error(fmt::format_string<Args...> text, Args&&... args) const {
    say(Level::kError, text, std::forward<Args>(args)...);
  }

 private:
  template <class... Args>
  void say(Level level, fmt::format_string<Args...> text, Args&&... args) const {
    if (enabled(level)) write(level, prefix_, fmt::format(text, std::forward<Args>(args)...));
  }

  std::string prefix_;
};

}  // namespace rmem::log
