// SPDX-License-Identifier: MIT
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>

#include "base/log.hh"
#include "store/filter_kinds.hh"

namespace rmem::store {
namespace {

class StatsStore;

// Those that live, for the report.
std::vector<StatsStore*>& stats_stores() {
  static std::vector<StatsStore*> all;
  return all;
}

// "128us", "4ms", "2s": a power of two of microseconds, nearly.
std::string duration(unsigned log2_us) {
  if (log2_us < 10) return fmt::format("{}us", 1u << log2_us);
  if (log2_us < 20) return fmt::format("{}ms", 1u << (log2_us - 10));
  return fmt::format("{}s", 1u << (log2_us - 20));
}

class StatsStore final : public FilterStore {
 public:
  StatsStore(Store& below, std::string name) : FilterStore(below), name_(std::move(name)) {
    stats_stores().push_back(this);
  }
  ~StatsStore() override { std::erase(stats_stores(), this); }

  void read(std::uint64_t offset, std::span<std::byte> into, Done done, Urgency urgency) override {
    below_.read(offset, into, timed(Operation::kRead, into.size(), done), urgency);
  }
  void write(std::uint64_t offset, std::span<const std::byte> from, Done done) override {
    below_.write(offset, from, timed(Operation::kWrite, from.size(), done));
  }
  void zero(std::uint64_t offset, std::uint64_t length, Done done) override {
    below_.zero(offset, length, timed(Operation::kZero, length, done));
  }
  void flush(Done done) override { below_.flush(timed(Operation::kFlush, 0, done)); }

  void report(std::vector<std::string>& lines) const {
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      const Counts& counts = counts_[i];
      std::string line =
          fmt::format("{}: {}: {} done, {} failed, {} under way, {} bytes", name_, kOperations[i],
                      counts.done, counts.failed, counts.under_way, counts.bytes);
      if (counts.done + counts.failed > 0) line += "; took less than";
      for (unsigned bucket = 0; bucket < counts.took.size(); ++bucket)
        if (counts.took[bucket] > 0)
          line += fmt::format(" {}: {}", duration(bucket), counts.took[bucket]);
      lines.push_back(std::move(line));
    }
  }

 private:
  using Clock = Reactor::Clock;

  struct Counts {
    std::uint64_t done = 0;
    std::uint64_t failed = 0;
    std::uint64_t under_way = 0;
    std::uint64_t bytes = 0;               // of those done
    std::array<std::uint64_t, 32> took{};  // less than 2^i microseconds, and not less than half
  };
  struct Op {
    StatsStore* store = nullptr;
    Operation operation{};
    std::uint64_t bytes = 0;
    Clock::time_point since{};
    Done callback;
  };

  Done timed(Operation operation, std::uint64_t bytes, Done done) {
    Op& op = pool_.take();
    op = {this, operation, bytes, Clock::now(), done};
    ++counts_[static_cast<std::size_t>(operation)].under_way;
    return {[](void* ctx, const Outcome& outcome) {
              auto& over = *static_cast<Op*>(ctx);
              over.store->count(over, outcome);
            },
            &op};
  }

  void count(Op& op, const Outcome& outcome) {
    Counts& counts = counts_[static_cast<std::size_t>(op.operation)];
    const auto took =
        std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - op.since).count();
    const auto bucket = static_cast<std::size_t>(std::bit_width(static_cast<std::uint64_t>(took)));
    ++counts.took[std::min(bucket, counts.took.size() - 1)];
    --counts.under_way;
    ++(outcome.err == 0 ? counts.done : counts.failed);
    if (outcome.err == 0) counts.bytes += op.bytes;
    const Done done = op.callback;
    pool_.give(op);
    done(outcome);
  }

  const std::string name_;
  std::array<Counts, 4> counts_;
  OpPool<Op> pool_;
};

}  // namespace

std::unique_ptr<Store> make_filter(const StatsFilter&, Store& below, const std::string& name) {
  return std::make_unique<StatsStore>(below, name);
}

std::vector<std::string> stats_report() {
  std::vector<std::string> lines;
  for (const StatsStore* store : stats_stores()) store->report(lines);
  return lines;
}

void log_stats() {
  const log::Source log("stats");
  for (const std::string& line : stats_report()) log.info("{}", line);
}

}  // namespace rmem::store
