// SPDX-License-Identifier: MIT
// Configuration files of both programs: taken with every value within its limits, or
// refused with one line that names a place in the file.
#include "base/config_file.hh"

#include <algorithm>
#include <charconv>
#include <set>

#include "control/config.hh"
#include "fuzz/fuzz.hh"
#include "server/config.hh"

namespace {

using namespace rmem;

void judge_mistake(const Status& status, std::string_view document) {
  FUZZ_CHECK(status.code() == Code::kUsage);
  const std::string& cause = status.cause();
  FUZZ_CHECK(cause.starts_with("f:"));
  const char* const end = cause.data() + cause.size();
  std::size_t line = 0, column = 0;
  const auto [colon, bad_line] = std::from_chars(cause.data() + 2, end, line);
  FUZZ_CHECK(bad_line == std::errc() && *colon == ':');
  const auto [space, bad_column] = std::from_chars(colon + 1, end, column);
  FUZZ_CHECK(bad_column == std::errc() && *space == ':');
  const auto lines = std::count(document.begin(), document.end(), '\n') + 1;
  FUZZ_CHECK(line >= 1 && line <= static_cast<std::size_t>(lines) && column >= 1);
  FUZZ_CHECK(std::none_of(cause.begin(), cause.end(),
                          [](unsigned char c) { return c < 0x20 || c == 0x7f; }));
}

}  // namespace

FUZZ_TARGET(config) {
  const std::string_view document = fuzz::text(input);

  server::Config server;
  if (const Status read = config::parse(document, "f", keys(server)); !read.ok()) {
    judge_mistake(read, document);
  } else {
    const server::ServerOptions& options = server.options;
    FUZZ_CHECK(options.limits.connections > 0 && options.session.max_requests > 0);
    FUZZ_CHECK(options.session.max_bytes >= 64 << 10);
    FUZZ_CHECK(options.session.handshake_timeout.count() > 0 && server.stop_timeout.count() > 0);
    std::set<std::string> names;
    for (const server::ExportSpec& one : options.exports) {
      FUZZ_CHECK(server::ExportSpec::check_name(one.name).ok());
      FUZZ_CHECK(names.insert(one.name).second);
      for (const server::Grant& grant : one.allow.value_or(server::AllowList{}))
        FUZZ_CHECK(server::check_identity(grant.identity).ok() &&
                   grant.access != server::Access::kNone);
    }
  }

  control::Config daemon;
  if (const Status read = config::parse(document, "f", keys(daemon)); !read.ok()) {
    judge_mistake(read, document);
  } else {
    daemon.defaults.name = "region";
    daemon.defaults.source = "rmem://server/export";
    FUZZ_CHECK(control::validate(daemon.defaults).ok());
    FUZZ_CHECK(control::valid_region_name(daemon.instance));
  }
}
