// SPDX-License-Identifier: MIT
#include "control/options.hh"

#include <algorithm>
#include <bit>
#include <limits>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "base/json.hh"
#include "base/uri.hh"
#include "control/fields.hh"
#include "linux/rmem.h"
#include "linux/rmem_netlink.h"

namespace rmem::control {
namespace {

constexpr int kBlobVersion = 1;
// Below that a push would cost more than its bytes.
constexpr std::uint64_t kLeastThreshold = 64u << 10;
constexpr std::uint64_t kMostMs = std::numeric_limits<std::int32_t>::max();

auto lasting(const AttachOptions& o) {
  return std::tie(o.name, o.source, o.chunk, o.read_only, o.uid, o.gid, o.mode, o.bind, o.on_loss,
                  o.resident_limit, o.dirty_limit, o.push_threshold, o.fault_timeout,
                  o.sync_timeout, o.push_interval, o.pull, o.insecure);
}

Status bad(std::string cause, std::string hint = {}) {
  return Status(Code::kUsage, std::move(cause), std::move(hint));
}

bool alphanumeric(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

}  // namespace

bool AttachOptions::operator==(const AttachOptions& other) const {
  return lasting(*this) == lasting(other);
}

bool valid_region_name(const std::string& name) {
  if (name.empty() || name.size() > RMEM_NAME_MAX || !alphanumeric(name[0])) return false;
  for (char c : name) {
    if (!alphanumeric(c) && c != '_' && c != '.' && c != '-') return false;
  }
  return true;
}

Status validate(const AttachOptions& o) {
  if (!valid_region_name(o.name)) {
    return bad("`" + o.name + "' is not a region name",
               "letters, digits, `_', `.' and `-', at most 64, the first a letter or digit");
  }
  if (o.source.empty() || o.source.size() > RMEM_SOURCE_MAX) {
    return bad("the URI is empty or longer than " + std::to_string(RMEM_SOURCE_MAX) + " bytes");
  }
  if (const auto uri = Uri::parse(o.source); !uri.ok()) {
    return bad("URI " + uri.status().cause(),
               "for instance rmem://host:7070/export or file:///path");
  }
  if (!std::has_single_bit(o.chunk) || o.chunk < RMEM_CHUNK_MIN || o.chunk > RMEM_CHUNK_MAX) {
    return bad("--chunk is " + std::to_string(o.chunk) + " bytes",
               "a power of two from 4KiB to 2MiB");
  }
  if (o.mode > 0777) return bad("--mode has more than permission bits", "for instance 0640");
  if (o.on_loss != "wait" && o.on_loss != "error" && o.on_loss != "kill") {
    return bad("--on-loss is `" + o.on_loss + "'", "wait, error or kill");
  }
  const std::uint64_t least =
      std::max<std::uint64_t>(RMEM_LIMIT_MIN, std::uint64_t{RMEM_LIMIT_CHUNKS} * o.chunk);
  for (const auto& [name, limit] :
       {std::pair{"--resident-limit", o.resident_limit}, {"--dirty-limit", o.dirty_limit}}) {
    if (limit == 0 || limit >= least) continue;
    return bad(std::string(name) + " is " + std::to_string(limit) + " bytes",
               "with this --chunk at least " + std::to_string(least >> 10) + "KiB, or 0 for none");
  }
  if (o.push_threshold != 0 && o.push_threshold < kLeastThreshold) {
    return bad("--push-threshold is " + std::to_string(o.push_threshold) + " bytes",
               "at least 64KiB, or 0 for none");
  }
  if (!o.bind.empty() && o.bind[0] != '/') return bad("--bind is not an absolute path");
  const auto in_range = [](std::chrono::milliseconds t, std::int64_t least) {
    return t.count() >= least && static_cast<std::uint64_t>(t.count()) <= kMostMs;
  };
  if (!in_range(o.fault_timeout, 1)) return bad("--fault-timeout is out of range", "1ms to 596h");
  if (!in_range(o.sync_timeout, 1)) return bad("--sync-timeout is out of range", "1ms to 596h");
  if (!in_range(o.push_interval, 10)) {
    return bad("--push-interval is out of range", "10ms to 596h");
  }
  if (o.pull != "none" && o.pull != "all" && o.pull != "recorded") {
    return bad("--pull is `" + o.pull + "'", "none, all or recorded");
  }
  if (Notes{o, {}, ~0ull}.to_blob().size() > RMEM_BLOB_MAX) {
    return bad("the options are too long together", "use a shorter path for --bind");
  }
  return Status();
}

nlohmann::json to_json(const AttachOptions& o) {
  return {{"name", o.name},
          {"source", o.source},
          {"chunk", o.chunk},
          {"read_only", o.read_only},
          {"uid", o.uid},
          {"gid", o.gid},
          {"mode", o.mode},
          {"bind", o.bind},
          {"bind_created", o.bind_created},
          {"on_loss", o.on_loss},
          {"resident_limit", o.resident_limit},
          {"dirty_limit", o.dirty_limit},
          {"push_threshold", o.push_threshold},
          {"fault_timeout_ms", o.fault_timeout.count()},
          {"sync_timeout_ms", o.sync_timeout.count()},
          {"push_interval_ms", o.push_interval.count()},
          {"pull", o.pull},
          {"pull_rate", o.pull_rate},
          {"push_rate", o.push_rate},
          {"insecure", o.insecure},
          {"take_over", o.take_over}};
}

Result<AttachOptions> options_from_json(const nlohmann::json& where,
                                        const AttachOptions& defaults) {
  AttachOptions o = defaults;
  Fields fields(where);
  fields.take("name", o.name);
  fields.take("source", o.source);
  const auto u32 = [&](const char* name, std::uint32_t& out, std::uint64_t most) {
    std::uint64_t value = out;
    fields.take(name, value, most);
    out = static_cast<std::uint32_t>(value);
  };
  const auto ms = [&](const char* name, std::chrono::milliseconds& out) {
    std::uint64_t value = static_cast<std::uint64_t>(out.count());
    fields.take(name, value, kMostMs);
    out = std::chrono::milliseconds(value);
  };
  u32("chunk", o.chunk, RMEM_CHUNK_MAX);
  fields.take("read_only", o.read_only);
  u32("uid", o.uid, std::numeric_limits<std::uint32_t>::max() - 1);
  u32("gid", o.gid, std::numeric_limits<std::uint32_t>::max() - 1);
  u32("mode", o.mode, 07777);
  fields.take("bind", o.bind);
  fields.take("bind_created", o.bind_created);
  fields.take("on_loss", o.on_loss);
  fields.take("resident_limit", o.resident_limit, ~std::uint64_t{0});
  fields.take("dirty_limit", o.dirty_limit, ~std::uint64_t{0});
  fields.take("push_threshold", o.push_threshold, ~std::uint64_t{0});
  ms("fault_timeout_ms", o.fault_timeout);
  ms("sync_timeout_ms", o.sync_timeout);
  ms("push_interval_ms", o.push_interval);
  fields.take("pull", o.pull);
  fields.take("pull_rate", o.pull_rate, ~std::uint64_t{0});
  fields.take("push_rate", o.push_rate, ~std::uint64_t{0});
  fields.take("insecure", o.insecure);
  fields.take("take_over", o.take_over);
  if (Status s = fields.status(); !s.ok()) return s;
  return o;
}

std::string Notes::to_blob() const {
  nlohmann::json kept = to_json(options);
  kept.erase("name");       // the kernel knows both,
  kept.erase("source");     // and room is short
  kept.erase("take_over");  // was for once
  return nlohmann::json{{"v", kBlobVersion},
                        {"options", std::move(kept)},
                        {"identity", uuid_to_string(identity)},
                        {"claim", claim_generation}}
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

Result<Notes> Notes::from_blob(const std::string& blob) {
  const auto failed = [](const std::string& why) {
    return Status(Code::kFailed, "the region's notes: " + why,
                  "it was made by another program or another release");
  };
  const auto parsed = parse_json(blob);
  if (!parsed.is_object()) return failed("not JSON");
  Fields fields(parsed);
  Notes notes;
  std::uint64_t version = 0;
  std::string identity;
  fields.take("v", version, ~0ull);
  if (version != kBlobVersion) return failed("version " + std::to_string(version));
  fields.skip("options");
  fields.take("identity", identity);
  fields.take("claim", notes.claim_generation, ~0ull);
  if (const Status s = fields.status(); !s.ok()) return failed(s.cause());
  auto options = options_from_json(parsed.value("options", nlohmann::json::object()));
  if (!options.ok()) return failed(options.status().cause());
  notes.options = std::move(*options);
  auto uuid = uuid_parse(identity);
  if (!uuid.ok()) return failed(uuid.status().cause());
  notes.identity = *uuid;
  return notes;
}

}  // namespace rmem::control
