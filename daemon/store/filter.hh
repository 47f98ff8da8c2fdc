// SPDX-License-Identifier: MIT
// Filters: stores that stand on another one and change how it behaves.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/reactor.hh"
#include "base/result.hh"
#include "store/store.hh"

namespace rmem::store {

// The four operations; what is said of each of them is an array in this order.
enum class Operation { kRead, kWrite, kZero, kFlush };
inline constexpr std::array<const char*, 4> kOperations = {"read", "write", "zero", "flush"};

// Fails operations, which are then not carried out. The fate of the n-th
// operation of a kind depends on the seed alone.
struct ErrorFilter {
  struct Rate {
    std::uint64_t every = 0;   // each so many-th; 0: by chance
    double probability = 0.0;  // from 0 to 1
    bool operator==(const Rate&) const = default;
  };
  std::array<Rate, 4> rates;
  int err = 5;  // EIO
  std::uint64_t seed = 1;
  bool operator==(const ErrorFilter&) const = default;
};

// Holds back completions, for a time out of a range that depends on the seed.
// What was asked for is done at once, so that the order stays.
struct DelayFilter {
  struct Range {
    std::chrono::milliseconds from{0};
    std::chrono::milliseconds to{0};
    bool operator==(const Range&) const = default;
  };
  std::array<Range, 4> ranges;
  std::uint64_t seed = 1;
  bool operator==(const DelayFilter&) const = default;
};

// Counts and times. See stats_report().
struct StatsFilter {
  bool operator==(const StatsFilter&) const = default;
};

// Keeps what was read in memory, a block at a time, the least recently used ones
// last. Writes and zeros go through, and end what is kept of their range.
struct CacheFilter {
  std::uint64_t size = 64 << 20;
  std::uint64_t block = 64 << 10;
  bool operator==(const CacheFilter&) const = default;
};

using Filter = std::variant<ErrorFilter, DelayFilter, StatsFilter, CacheFilter>;

// FILTER+FILTER+SCHEME://...?FILTER.OPTION=VALUE, taken apart.
struct FilteredUri {
  std::vector<Filter> filters;  // the outermost first
  std::string base;             // the URI without them

  // kUsage: an unknown or impossible option, or a filter given twice. What is no
  // URI at all is left to whoever parses `base`.
  static Result<FilteredUri> parse(std::string_view text);
};

// The filters of one store, put on it.
class FilterStack {
 public:
  FilterStack() = default;
  // `base` must outlive it, and it the operations. `name` is for the report.
  FilterStack(Reactor& reactor, const std::vector<Filter>& filters, Store& base,
              const std::string& name);

  // Null if there is none.
  Store* top() const { return stores_.empty() ? nullptr : stores_.back().get(); }

 private:
  std::vector<std::unique_ptr<Store>> stores_;  // the outermost last
};

// What the stats filters of this process have counted, a line for each kind of
// operation; for the thread of their reactor.
std::vector<std::string> stats_report();
// The same, to the log.
void log_stats();

}  // namespace rmem::store
