// SPDX-License-Identifier: MIT
// Regions and events as text and as JSON.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kchan/netlink.hh"

namespace rmem::ctl {

// Sizes for people, in at most five characters and a unit: "0", "4KiB",
// "1.5GiB".
std::string human_size(std::uint64_t bytes);

// One region with the members that scripts rely on, in their order.
// `daemon`: what rmemd answers to "status"; null if it does not.
nlohmann::ordered_json region_json(const kchan::RegionInfo& region, const nlohmann::json& daemon);

// {"schema":1,"regions":[...]}, one line.
std::string status_json(const std::vector<kchan::RegionInfo>& regions,
                        const nlohmann::json& daemon);
// An aligned table, and below it why regions are not active. `all`: nothing was
// left out because the caller may not open it.
std::string status_table(const std::vector<kchan::RegionInfo>& regions, bool all);
// Why it is in its state, who waits for what, and what can be done about it.
std::string status_why(const kchan::RegionInfo& region);

std::string event_json(const kchan::Event& event);
std::string event_text(const kchan::Event& event);

}  // namespace rmem::ctl
