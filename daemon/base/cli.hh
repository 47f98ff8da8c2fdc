// SPDX-License-Identifier: MIT
// What every program of rmem does alike at the shell: options, errors, exit
// codes.
#pragma once

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.hh"

namespace rmem::cli {

// Options whose value is a size (bytes) or a time; what is none is a usage
// error. `value` must outlive the parsing; its present value is the default.
CLI::Option* add_size(CLI::App& app, const std::string& name, std::uint64_t& value,
                      const std::string& help);
CLI::Option* add_duration(CLI::App& app, const std::string& name, std::chrono::milliseconds& value,
                          const std::string& help);

// Parses the command line. Nothing when the program shall go on; otherwise its
// exit code, everything having been said: 0 after --help, kUsage after a
// mistake. Mistakes are told as JSON if --json is among the arguments.
std::optional<int> parse(CLI::App& app, int argc, const char* const* argv);

// {"schema":1,"error":{"code":7,"name":"unreachable","cause":"...","hint":"..."}}
std::string error_json(const Status& status);

// --config and --check-config, of a program that has a file of its own.
struct ConfigFile {
  std::string path;    // empty: there is none
  bool check = false;  // and nothing else
  // `usual` is used where it exists and --config names no other; call after parsing.
  void find(const std::string& usual);
};
void add_config(CLI::App& app, ConfigFile& file, const std::string& usual);

// Runs a program: hands on what `body` returns. An exception, out of memory most
// likely since nothing else throws, is told on stderr and is kFailed.
int guard(const char* program, int (*body)(int, char**), int argc, char** argv) noexcept;

// Tells on stderr why `program` fails, as text or as JSON, and returns its exit
// code. Nothing is printed for an ok status.
int fail(std::string_view program, const Status& status, bool json = false);

}  // namespace rmem::cli
