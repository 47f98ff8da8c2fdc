// SPDX-License-Identifier: MIT
#include "control/config.hh"

#include "linux/rmem.h"
#include "transport/tls_config.hh"

namespace rmem::control {
namespace {

using config::Table;
using config::Value;
using namespace std::chrono_literals;

// As far as they can be wrong without each other; validate() says the rest.
Table region_keys(AttachOptions& o, std::uint64_t& chunk) {
  constexpr auto kMost = std::chrono::hours(596);
  const auto word = [](std::string& out, std::initializer_list<const char*> words) {
    std::vector<std::pair<std::string, std::string>> all;
    for (const char* one : words) all.emplace_back(one, one);
    return config::word<std::string>(out, std::move(all));
  };
  Table keys;
  keys.key("chunk", config::size(chunk, RMEM_CHUNK_MIN, RMEM_CHUNK_MAX))
      .key("on-loss", word(o.on_loss, {"wait", "error", "kill"}))
      .key("fault-timeout", config::duration(o.fault_timeout, 1ms, kMost))
      .key("sync-timeout", config::duration(o.sync_timeout, 1ms, kMost))
      .key("push-interval", config::duration(o.push_interval, 10ms, kMost))
      .key("resident-limit", config::size(o.resident_limit))
      .key("dirty-limit", config::size(o.dirty_limit))
      .key("push-threshold", config::size(o.push_threshold))
      .key("pull", word(o.pull, {"none", "all", "recorded"}))
      .key("pull-rate", config::size(o.pull_rate))
      .key("push-rate", config::size(o.push_rate));
  return keys;
}

Status take_defaults(const Value& value, AttachOptions& defaults) {
  AttachOptions o = defaults;
  std::uint64_t chunk = o.chunk;
  if (Status taken = region_keys(o, chunk).take(value); !taken.ok()) return taken;
  o.chunk = static_cast<std::uint32_t>(chunk);
  // With a name and a source as any.
  o.name = "region";
  o.source = "rmem://server/export";
  if (const Status valid = validate(o); !valid.ok()) return value.wrong(valid);
  o.name = defaults.name;
  o.source = defaults.source;
  defaults = o;
  return Status();
}

}  // namespace

std::vector<std::pair<std::string, store::Compression>> compressions() {
  using store::Compression;
  return {{"auto", Compression::kAuto},
          {"lz4", Compression::kLz4},
          {"zstd", Compression::kZstd},
          {"off", Compression::kOff}};
}

Table keys(Config& config) {
  Table root;
  root.key("socket", config::text(config.socket))
      .key("instance", config::parsed([&config](const std::string& text) {
             config.instance = text;
             return valid_region_name(text) ? Status() : Status(Code::kUsage, "is not a name");
           }))
      .key("state-dir", config::text(config.state_dir))
      .key("stop-timeout", config::duration(config.stop_timeout, 100ms, std::chrono::hours(1)))
      .key("hedge", config::word<bool>(config.hedge, {{"off", false}, {"auto", true}}))
      .key("compress", config::word<store::Compression>(config.remote.compression, compressions()))
      .key("bulk-connections", config::number<unsigned>(config.remote.bulk_connections, 0,
                                                        store::RemoteOptions::kMostConnections))
      .key("page-connections", config::number<unsigned>(config.remote.page_connections, 0,
                                                        store::RemoteOptions::kMostConnections))
      .key("tls",
           config::table(transport::tls_keys(transport::TlsSide::kClient, config.remote.tls)))
      .key("region",
           [&config](const Value& value) { return take_defaults(value, config.defaults); });
  return root;
}

std::vector<std::string_view> fixed_changes(const Config& now, const Config& next) {
  std::vector<std::string_view> keys;
  if (now.socket != next.socket) keys.emplace_back("socket");
  if (now.instance != next.instance) keys.emplace_back("instance");
  if (now.state_dir != next.state_dir) keys.emplace_back("state-dir");
  if (now.hedge != next.hedge) keys.emplace_back("hedge");
  if (now.remote.compression != next.remote.compression) keys.emplace_back("compress");
  if (now.remote.bulk_connections != next.remote.bulk_connections)
    keys.emplace_back("bulk-connections");
  if (now.remote.page_connections != next.remote.page_connections)
    keys.emplace_back("page-connections");
  if (now.remote.tls != next.remote.tls) keys.emplace_back("tls");
  return keys;
}

}  // namespace rmem::control
