// SPDX-License-Identifier: MIT
// JSON that somebody else has written.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

namespace rmem {

// Deeper than anything that is written on purpose. To copy a value, or to write it,
// takes stack for each level, and a line has room for enough levels to use it up.
inline constexpr int kJsonLevelsMost = 32;

// Discarded (is_discarded()) if it is not JSON, or nested deeper than that.
inline nlohmann::json parse_json(std::string_view text) {
  using nlohmann::json;
  bool deep = false;
  auto parsed = json::parse(
      text,
      [&deep](int depth, json::parse_event_t, json&) {
        deep |= depth > kJsonLevelsMost;
        return !deep;
      },
      false);
  if (deep) return json(json::value_t::discarded);
  return parsed;
}

}  // namespace rmem
