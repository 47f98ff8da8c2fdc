// SPDX-License-Identifier: MIT
#include "base/units.hh"

#include <charconv>
#include <span>

namespace rmem {
namespace {

struct Unit {
  std::string_view name;
  std::uint64_t factor;
};

constexpr Unit kSizes[] = {
    {"B", 1}, {"KiB", 1ull << 10}, {"MiB", 1ull << 20}, {"GiB", 1ull << 30}, {"TiB", 1ull << 40}};
constexpr Unit kTimes[] = {{"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}};

constexpr std::uint64_t kMost = INT64_MAX;  // an off_t, and a chrono count, hold no more

// A whole number and one of `units`; `bare` is the factor of a number without.
bool parse(std::string_view text, std::span<const Unit> units, std::uint64_t bare,
           std::uint64_t& value) {
  std::uint64_t number = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return false;
  const std::string_view name(rest, static_cast<std::size_t>(text.data() + text.size() - rest));
  std::uint64_t factor = name.empty() ? bare : 0;
  for (const Unit& unit : units)
    if (unit.name == name) factor = unit.factor;
  if (factor == 0 && number != 0) return false;
  if (factor == 0 && !name.empty()) return false;
  if (factor != 0 && number > kMost / factor) return false;
  value = number * factor;
  return true;
}

}  // namespace

Result<std::uint64_t> parse_size(std::string_view text) {
  std::uint64_t bytes = 0;
  if (parse(text, kSizes, 1, bytes)) return bytes;
  return Status(Code::kUsage, "`" + std::string(text) + "' is not a size",
                "sizes are whole numbers, as 4096, 64KiB, 16MiB, 1GiB");
}

Result<std::chrono::milliseconds> parse_duration(std::string_view text) {
  std::uint64_t ms = 0;
  if (parse(text, kTimes, 0, ms)) return std::chrono::milliseconds(ms);
  return Status(Code::kUsage, "`" + std::string(text) + "' is not a time",
                "times are whole numbers with a unit, as 500ms, 30s, 5m, 2h");
}

std::string format_size(std::uint64_t bytes) {
  const Unit* best = &kSizes[0];
  for (const Unit& unit : kSizes)
    if (bytes != 0 && bytes % unit.factor == 0) best = &unit;
  return std::to_string(bytes / best->factor) + std::string(best->name);
}

}  // namespace rmem
