// SPDX-License-Identifier: MIT
#include "format.hh"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <unordered_map>

#include "control/options.hh"

namespace rmem::ctl {
namespace {

std::string dump(const nlohmann::ordered_json& document) {
  return document.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

// Names and sources come from others; a terminal shall not obey them.
std::string printable(const std::string& text) {
  std::string out = text;
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return out;
}

std::string bound_to(const kchan::RegionInfo& region) {
  const auto notes = control::Notes::from_blob(region.blob);
  return notes.ok() ? notes->options.bind : std::string();
}

// What rmemd says of its regions, by id; refers to `daemon`.
using DaemonRegions = std::unordered_map<std::uint64_t, const nlohmann::json*>;

DaemonRegions daemon_regions(const nlohmann::json& daemon) {
  DaemonRegions by_id;
  if (!daemon.is_object()) return by_id;
  const auto list = daemon.find("regions");
  if (list == daemon.end() || !list->is_array()) return by_id;
  for (const auto& one : *list)
    if (one.is_object()) by_id[one.value("id", std::uint64_t{0})] = &one;
  return by_id;
}

// What the region takes beside its pages: in the module, in rmemd, and at most
// there for all regions together. rmemd's part is null where it does not say.
nlohmann::ordered_json memory_json(const kchan::RegionInfo& r, const nlohmann::json& daemon,
                                   const nlohmann::json* mine) {
  nlohmann::ordered_json j = {{"module_bytes", r.module_bytes},
                              {"daemon_bytes", nullptr},
                              {"daemon_total_bytes", nullptr},
                              {"daemon_bound_bytes", nullptr}};
  const auto number = [](const nlohmann::json& from, const char* name) {
    return from.value(name, std::uint64_t{0});
  };
  if (mine == nullptr) return j;
  j["daemon_bytes"] = number(*mine, "buffer_bytes");
  j["daemon_total_bytes"] = number(daemon, "memory_bytes");
  j["daemon_bound_bytes"] = number(daemon, "memory_bound_bytes");
  return j;
}

}  // namespace

std::string human_size(std::uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  if (bytes == 0) return "0";
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  // One digit after the point, unless that is a zero or the number is long.
  std::string number = fmt::format("{:.{}f}", value, unit == 0 || value >= 99.95 ? 0 : 1);
  if (number.ends_with(".0")) number.resize(number.size() - 2);
  return number + kUnits[unit];
}

nlohmann::ordered_json region_json(const kchan::RegionInfo& r, const nlohmann::json& daemon,
                                   const nlohmann::json* mine) {
  nlohmann::ordered_json j = {
      {"name", r.name},
      {"source", r.source},
      {"state", kchan::state_name(r.state)},
      {"size_bytes", r.size},
      {"chunk_bytes", r.chunk},
      {"resident_bytes", r.resident_bytes},
      {"dirty_bytes", r.dirty_bytes},
      {"writeback_bytes", r.writeback_bytes},
      {"fetched_bytes", r.fetched_bytes},
      {"pushed_bytes", r.pushed_bytes},
      {"faults",
       {{"demand", r.faults_demand},
        {"resident", r.faults_resident},
        {"write_protect", r.faults_write_protect}}},
      {"waiting", r.waiting},
      {"errors", r.errors},
      {"read_only", r.read_only()},
      {"daemon_pid", nullptr},
      {"reason", r.reason},
      {"id", r.id},
      {"users", r.users},
      {"uid", r.uid},
      {"gid", r.gid},
      {"mode", fmt::format("{:04o}", r.mode)},
      {"on_loss", kchan::on_loss_name(r.on_loss)},
      {"resident_limit_bytes", r.resident_limit},
      {"dirty_limit_bytes", r.dirty_limit},
      {"push_threshold_bytes", r.push_threshold},
      {"fault_timeout_ms", r.fault_timeout_ms},
      {"sync_timeout_ms", r.sync_timeout_ms},
      {"instance", r.instance},
      {"bind", bound_to(r)},
      {"memory", memory_json(r, daemon, mine)},
  };
  if (r.daemon_pid) j["daemon_pid"] = *r.daemon_pid;
  // The daemon's own, and what goes on there, while it does.
  if (mine != nullptr)
    for (const char* what : {"transport", "tls_user_ms", "compression_saved_bytes", "pull_rate",
                             "push_rate", "pull", "recording"})
      if (const auto it = mine->find(what); it != mine->end()) j[what] = *it;
  return j;
}

std::string status_json(const std::vector<kchan::RegionInfo>& regions,
                        const nlohmann::json& daemon) {
  nlohmann::ordered_json document = {{"schema", 1}, {"regions", nlohmann::ordered_json::array()}};
  const DaemonRegions by_id = daemon_regions(daemon);
  for (const auto& r : regions) {
    const auto mine = by_id.find(r.id);
    document["regions"].push_back(
        region_json(r, daemon, mine == by_id.end() ? nullptr : mine->second));
  }
  return dump(document);
}

std::string status_table(const std::vector<kchan::RegionInfo>& regions, bool all) {
  if (regions.empty()) return all ? "no regions\n" : "no regions that you may open\n";
  constexpr std::size_t kColumns = 10;
  using Row = std::array<std::string, kColumns>;
  std::vector<Row> rows = {{"NAME", "STATE", "SIZE", "RESIDENT", "DIRTY", "FETCHED", "PUSHED",
                            "FAULTS", "WAITING", "SOURCE"}};
  for (const auto& r : regions) {
    rows.push_back({r.name, kchan::state_name(r.state), human_size(r.size),
                    human_size(r.resident_bytes), human_size(r.dirty_bytes + r.writeback_bytes),
                    human_size(r.fetched_bytes), human_size(r.pushed_bytes),
                    std::to_string(r.faults_demand), std::to_string(r.waiting),
                    printable(r.source) + (r.read_only() ? " (read-only)" : "")});
  }
  std::array<std::size_t, kColumns> width{};
  for (const Row& row : rows) {
    for (std::size_t c = 0; c < kColumns; ++c) width[c] = std::max(width[c], row[c].size());
  }
  std::string out;
  for (const Row& row : rows) {
    for (std::size_t c = 0; c + 1 < kColumns; ++c) {
      // Words to the left, numbers to the right.
      out += c < 2 ? fmt::format("{:<{}}  ", row[c], width[c])
                   : fmt::format("{:>{}}  ", row[c], width[c]);
    }
    out += row[kColumns - 1] + "\n";
  }
  for (const auto& r : regions) {
    if (r.reason.empty() || r.state == RMEM_STATE_ACTIVE) continue;
    out += fmt::format("{} is {}: {}\n", r.name, kchan::state_name(r.state), printable(r.reason));
  }
  return out;
}

std::string status_why(const kchan::RegionInfo& r) {
  std::string out = fmt::format("{}: {}", r.name, kchan::state_name(r.state));
  if (!r.reason.empty()) out += ": " + printable(r.reason);
  out += "\n";
  const auto line = [&out](const std::string& text) { out += "  " + text + "\n"; };
  const std::uint64_t unsafe = r.dirty_bytes + r.writeback_bytes;
  const bool failed = r.state == RMEM_STATE_FAILED, active = r.state == RMEM_STATE_ACTIVE;

  if (r.waiting != 0) {
    const std::string patience = fmt::format("{} ms", r.fault_timeout_ms);
    const std::string then = r.on_loss == RMEM_ON_LOSS_KILL    ? ", then it is killed"
                             : r.on_loss == RMEM_ON_LOSS_ERROR ? ", then it gets an error"
                                                               : " and longer, and may be killed";
    line(
        fmt::format("{} waiting for a page or for room: each for {}{}", r.waiting, patience, then));
  }
  if (r.resident_limit != 0) {
    line(fmt::format("{} of at most {} resident", human_size(r.resident_bytes),
                     human_size(r.resident_limit)));
  }
  if (r.dirty_limit != 0 && unsafe >= r.dirty_limit) {
    line("at its dirty limit of " + human_size(r.dirty_limit) +
         ": the first write to a clean page waits until others are durable");
  }
  if (unsafe != 0) {
    line(human_size(unsafe) + " not durable" +
         (failed   ? ": no store takes it any more"
          : active ? ": pushed before long, or by rmemctl sync"
                   : ": kept here, and pushed once the store is back"));
  }
  if (r.errors != 0) line(fmt::format("{} fetches and writes failed so far", r.errors));
  if (r.users != 0) line(fmt::format("{} open or mapped", r.users));

  switch (r.state) {
    case RMEM_STATE_DEGRADED:
      line("next: see that the server runs and is reached; rmemd tries again every second");
      break;
    case RMEM_STATE_QUIESCED:
      line("next: start rmemd" +
           (r.instance == control::kDefaultInstance ? "" : " --instance " + printable(r.instance)));
      break;
    case RMEM_STATE_FAILED:
      if (unsafe != 0) line(fmt::format("next: rmemctl salvage {} FILE", r.name));
      line(fmt::format("next: rmemctl detach {} --force, then attach again", r.name));
      return out;
    default:
      return out;
  }
  if (r.waiting != 0) {
    line(fmt::format("or: rmemctl abort {} gives those who wait an error now", r.name));
  }
  return out;
}

std::string event_json(const kchan::Event& event) {
  return dump({{"schema", 1},
               {"event", kchan::event_name(event.kind)},
               {"name", event.region.name},
               {"id", event.region.id},
               {"state", kchan::state_name(event.region.state)},
               {"reason", event.region.reason}});
}

std::string event_text(const kchan::Event& event) {
  std::string out =
      fmt::format("{} {}", printable(event.region.name), kchan::event_name(event.kind));
  if (event.kind == RMEM_EVENT_STATE)
    out += fmt::format(" {}", kchan::state_name(event.region.state));
  if (!event.region.reason.empty()) out += ": " + printable(event.region.reason);
  return out + "\n";
}

}  // namespace rmem::ctl
