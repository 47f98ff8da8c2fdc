// SPDX-License-Identifier: MIT
#include "server/config.hh"

#include <algorithm>

#include "transport/tls_config.hh"

namespace rmem::server {
namespace {

using config::Table;
using config::Take;
using config::Value;
using namespace std::chrono_literals;

// A slower one would let clients take the server for dead while they wait.
constexpr std::uint64_t kLeastRate = 64 << 10;

Take rate(std::uint64_t& out) {
  return [&out](const Value& value) {
    std::uint64_t bytes = 0;
    if (Status taken = config::size(bytes)(value); !taken.ok()) return taken;
    if (bytes != 0 && bytes < kLeastRate)
      return value.wrong("has to be 0, for none, or at least 64KiB");
    out = bytes;
    return Status();
  };
}

Take grants(std::optional<AllowList>& list) {
  return [&list](const Value& value) {
    list.emplace();
    return config::tables([&list](const Value& element) {
      Grant grant;
      Table keys;
      keys.required("identity", config::parsed([&grant](const std::string& text) {
                      grant.identity = text;
                      return check_identity(text);
                    }))
          .required("access", config::word<Access>(grant.access, {{"read-only", Access::kRead},
                                                                  {"read-write", Access::kWrite}}));
      if (Status taken = keys.take(element); !taken.ok()) return taken;
      list->push_back(std::move(grant));
      return Status();
    })(value);
  };
}

Take exports(std::vector<ExportSpec>& list) {
  return config::tables([&list](const Value& element) {
    ExportSpec spec;
    Table keys;
    keys.required("name", config::parsed([&](const std::string& text) {
                    const auto same = [&](const ExportSpec& one) { return one.name == text; };
                    if (std::any_of(list.begin(), list.end(), same))
                      return Status(Code::kUsage, "`" + text + "' is given twice");
                    spec.name = text;
                    return ExportSpec::check_name(text);
                  }))
        .required("store", config::parsed([&spec](const std::string& text) {
                    auto store = store::Spec::parse(text);
                    if (store) spec.store = *store;
                    return store.status();
                  }))
        .key("read-only", config::boolean(spec.read_only))
        .key("allow", grants(spec.allow))
        .key("read-rate", rate(spec.read_rate))
        .key("write-rate", rate(spec.write_rate));
    if (Status taken = keys.take(element); !taken.ok()) return taken;
    list.push_back(std::move(spec));
    return Status();
  });
}

Table limits(ServerOptions& options) {
  constexpr std::size_t kMost = 1 << 20;
  Table keys;
  keys.key("connections", config::number<std::size_t>(options.limits.connections, 1, kMost))
      .key("connections-per-address",
           config::number<std::size_t>(options.limits.per_host, 0, kMost))
      .key("unopened-per-address",
           config::number<std::size_t>(options.limits.unopened_per_host, 0, kMost))
      .key("handshake-timeout",
           config::duration(options.session.handshake_timeout, 100ms, std::chrono::minutes(10)))
      .key("silence-timeout", config::duration(options.session.silence, 1s, std::chrono::hours(24)))
      .key("requests", config::number<std::uint32_t>(options.session.max_requests, 1, 1 << 16))
      .key("bytes-in-flight", config::size(options.session.max_bytes, 64 << 10, 1ull << 32))
      .key("memory", config::size(options.memory, 16 << 20, 1ull << 44));
  return keys;
}

}  // namespace

Table keys(Config& config) {
  ServerOptions& options = config.options;
  Table root;
  root.key("listen", config::list(config::parsed([&config](const std::string& text) {
             auto address = transport::Address::parse(text);
             if (address) config.listen.push_back(*address);
             return address.status();
           })))
      .key("state-dir", config::text(options.state_dir))
      .key("insecure", config::boolean(options.insecure))
      .key("compress", config::boolean(options.session.compress))
      .key("stop-timeout", config::duration(config.stop_timeout, 100ms, std::chrono::hours(1)))
      .key("limits", config::table(limits(options)))
      .key("tls", config::table(transport::tls_keys(transport::TlsSide::kServer, options.tls)))
      .key("export", exports(options.exports));
  return root;
}

std::vector<std::string_view> fixed_changes(const Config& now, const Config& next) {
  std::vector<std::string_view> keys;
  if (now.listen != next.listen) keys.emplace_back("listen");
  if (now.options.state_dir != next.options.state_dir) keys.emplace_back("state-dir");
  if (now.options.insecure != next.options.insecure) keys.emplace_back("insecure");
  if (now.options.tls != next.options.tls) keys.emplace_back("tls");
  return keys;
}

}  // namespace rmem::server
