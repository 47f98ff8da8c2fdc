// SPDX-License-Identifier: MIT
#include "base/cli.hh"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/units.hh"

namespace rmem::cli {

CLI::Option* add_size(CLI::App& app, const std::string& name, std::uint64_t& value,
                      const std::string& help) {
  return app
      .add_option_function<std::string>(
          name,
          [name, &value](const std::string& text) {
            const auto size = parse_size(text);
            if (!size) throw CLI::ValidationError(name, size.status().cause());
            value = *size;
          },
          help)
      ->type_name("SIZE");
}

CLI::Option* add_duration(CLI::App& app, const std::string& name, std::chrono::milliseconds& value,
                          const std::string& help) {
  return app
      .add_option_function<std::string>(
          name,
          [name, &value](const std::string& text) {
            const auto time = parse_duration(text);
            if (!time) throw CLI::ValidationError(name, time.status().cause());
            value = *time;
          },
          help)
      ->type_name("TIME");
}

void ConfigFile::find(const std::string& usual) {
  // What is there and cannot be read is a mistake that reading it tells.
  if (path.empty() && (::access(usual.c_str(), F_OK) == 0 || errno != ENOENT)) path = usual;
}

void add_config(CLI::App& app, ConfigFile& file, const std::string& usual) {
  app.add_option("--config", file.path, "configuration file [" + usual + ", if it is there]")
      ->type_name("PATH");
  app.add_flag("--check-config", file.check,
               "look for mistakes in configuration file and command line, and do nothing else");
}

std::optional<int> parse(CLI::App& app, int argc, const char* const* argv) {
  try {
    app.parse(argc, argv);
    return std::nullopt;
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help and its like
    bool json = false;
    for (int i = 1; i < argc; ++i) json = json || std::string_view(argv[i]) == "--json";
    // Without a command that it knows, the library does not look at the rest.
    const auto rest = app.remaining();
    const bool unknown = error.get_name() == "RequiredError" && !rest.empty();
    const std::string cause = unknown ? "no command `" + rest.front() + "'" : error.what();
    return fail(app.get_name(), Status(Code::kUsage, cause), json);
  }
}

int guard(const char* program, int (*body)(int, char**), int argc, char** argv) noexcept {
  try {
    return body(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", program, error.what());
  }
  return static_cast<int>(Code::kFailed);
}

std::string error_json(const Status& status) {
  const nlohmann::ordered_json document = {{"schema", 1},
                                           {"error",
                                            {{"code", static_cast<int>(status.code())},
                                             {"name", code_name(status.code())},
                                             {"cause", status.cause()},
                                             {"hint", status.hint()}}}};
  // Causes may quote what a peer or a user wrote; not all of that is UTF-8.
  return document.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

int fail(std::string_view program, const Status& given, bool json) {
  if (given.ok()) return 0;
  const bool usage = given.code() == Code::kUsage && given.hint().empty();
  const Status status =
      usage ? given.with_hint("see `" + std::string(program) + " --help'") : given;
  if (json) {
    std::cerr << error_json(status) << std::endl;
  } else {
    std::cerr << program << ": " << status.cause() << '\n';
    if (!status.hint().empty()) std::cerr << program << ": next: " << status.hint() << '\n';
    std::cerr.flush();
  }
  return static_cast<int>(status.code());
}

}  // namespace rmem::cli
