// SPDX-License-Identifier: MIT
#include "measure.hh"

#include <algorithm>
#include <cmath>
#include <latch>
#include <numeric>
#include <optional>
#include <random>
#include <thread>

namespace rmem::bench {
namespace {

using Clock = std::chrono::steady_clock;

// What is written in place of the pattern is the pattern of pages that far behind.
constexpr std::uint64_t kOther = 1ull << 32;

double ns_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::nano>(Clock::now() - begin).count();
}

std::vector<std::byte> pattern(std::size_t pages, std::uint64_t first) {
  std::vector<std::byte> bytes(pages * kPage);
  fill_pattern(bytes, first);
  return bytes;
}

Status check_all(Peer& peer, std::span<const std::uint32_t> pages, std::uint64_t other) {
  for (const std::uint32_t page : pages)
    if (Status right = peer.check(page, page + other); !right.ok()) return right;
  return Status();
}

Status access_one_by_one(Peer& peer, Case which, std::span<const std::uint32_t> pages,
                         std::vector<double>& accesses) {
  for (const std::uint32_t& page : pages) {
    const auto begin = Clock::now();
    if (Status got = peer.access(which, {&page, 1}, 0); !got.ok()) return got;
    accesses.push_back(ns_since(begin));
  }
  return Status();
}

// Returns when all threads are there; each accesses its pages when `go` is given.
class Team {
 public:
  Team(Peer& peer, Case which, std::span<const std::uint32_t> pages)
      : results_(threads_of(which)), ready_(threads_of(which)) {
    const unsigned count = threads_of(which);
    for (unsigned i = 0; i < count; ++i) {
      std::vector<std::uint32_t> mine;
      for (std::size_t n = i; n < pages.size(); n += count) mine.push_back(pages[n]);
      threads_.emplace_back([this, &peer, which, i, mine = std::move(mine)] {
        ready_.count_down();
        go_.wait();
        results_[i] = peer.access(which, mine, i);
      });
    }
    ready_.wait();
  }
  ~Team() { join(); }

  Status run() {
    go_.count_down();
    join();
    for (const Status& result : results_)
      if (!result.ok()) return result;
    return Status();
  }

 private:
  void join() {
    if (!go_.try_wait()) go_.count_down();
    for (std::thread& thread : threads_)
      if (thread.joinable()) thread.join();
  }

  std::vector<Status> results_;
  std::vector<std::thread> threads_;
  std::latch ready_;
  std::latch go_{1};
};

Status accesses_of(Peer& peer, const std::vector<std::uint32_t>& pages, Figure& figure,
                   double& ns) {
  const Case which = figure.which;
  std::optional<Team> team;
  if (threads_of(which) > 1) team.emplace(peer, which, pages);
  const auto begin = Clock::now();
  Status ran = peer.begin(which);
  if (ran.ok()) {
    if (team)
      ran = team->run();
    else if (which == Case::kRandom)
      ran = access_one_by_one(peer, which, pages, figure.accesses);
    else
      ran = peer.access(which, pages, 0);
  }
  ns = ns_since(begin);
  return ran.ok() ? check_all(peer, pages, 0) : ran;
}

Status overwrite_of(Peer& peer, Case which, const std::vector<std::uint32_t>& pages, double& ns) {
  const auto other = pattern(pages.size(), kOther);
  const auto begin = Clock::now();
  if (Status done = peer.overwrite(which, other); !done.ok()) return done;
  ns = ns_since(begin);
  if (Status ready = peer.prepare(Case::kSequential); !ready.ok()) return ready;
  if (Status got = peer.access(Case::kSequential, pages, 0); !got.ok()) return got;
  if (Status right = check_all(peer, pages, kOther); !right.ok()) return right;
  if (Status ready = peer.prepare(Case::kRewrite); !ready.ok()) return ready;
  return peer.overwrite(Case::kRewrite, pattern(pages.size(), 0));
}

Status one_run(Peer& peer, const Plan& plan, unsigned round, Report& report, Figure& figure) {
  const auto pages = pages_of(figure.which, plan, round);
  if (Status ready = peer.prepare(figure.which); !ready.ok()) return ready;
  const auto begin = Clock::now();
  double ns = 0;
  const Status ran = overwrites(figure.which) ? overwrite_of(peer, figure.which, pages, ns)
                                              : accesses_of(peer, pages, figure, ns);
  if (!ran.ok()) return ran;
  figure.rounds.push_back(ns / static_cast<double>(pages.size()));
  report.checked_pages += pages.size();
  report.checking += std::chrono::nanoseconds(static_cast<std::int64_t>(ns_since(begin) - ns));
  return Status();
}

}  // namespace

Status Peer::overwrite(Case, std::span<const std::byte>) {
  return Status(Code::kUsage, name_ + " cannot be written to");
}

std::string_view case_name(Case which) {
  switch (which) {
    case Case::kSequential:
      return "sequential";
    case Case::kRandom:
      return "random";
    case Case::kRandom4:
      return "random-4";
    case Case::kRandom64:
      return "random-64";
    case Case::kResident:
      return "resident";
    case Case::kWarm:
      return "warm";
    case Case::kWrite:
      return "write";
    case Case::kOverwrite:
      return "overwrite";
    case Case::kRewrite:
      return "rewrite";
  }
  return {};
}

unsigned threads_of(Case which) {
  return which == Case::kRandom4 ? 4 : which == Case::kRandom64 ? kMostThreads : 1;
}

std::vector<std::uint32_t> pages_of(Case which, const Plan& plan, unsigned round) {
  std::vector<std::uint32_t> pages;
  if (!is_random(which)) {
    pages.resize((overwrites(which) ? plan.size / 4 : plan.size) / kPage);
    std::iota(pages.begin(), pages.end(), 0u);
    return pages;
  }
  std::mt19937_64 chance(plan.seed + round);
  for (std::uint64_t at = 0; at < plan.size; at += kApart) {
    const std::uint64_t room = std::min(kApart, plan.size - at) / kPage;
    pages.push_back(static_cast<std::uint32_t>(at / kPage + chance() % room));
  }
  std::shuffle(pages.begin(), pages.end(), chance);
  return pages;
}

double Figure::median() const {
  std::vector<double> sorted = rounds;
  std::sort(sorted.begin(), sorted.end());
  const std::size_t n = sorted.size();
  return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

double Figure::quantile(double part) const {
  std::vector<double> sorted = accesses;
  std::sort(sorted.begin(), sorted.end());
  const double last = static_cast<double>(sorted.size() - 1);
  return sorted[static_cast<std::size_t>(std::lround(part * last))];
}

double Figure::least() const { return *std::min_element(rounds.begin(), rounds.end()); }

double Figure::most() const { return *std::max_element(rounds.begin(), rounds.end()); }

Result<Report> measure(const Plan& plan, std::span<const std::unique_ptr<Peer>> peers) {
  Report report{.plan = plan};
  for (const auto& peer : peers)
    for (const Case which : plan.cases)
      if (peer->can(which))
        report.figures.push_back({peer->name(), which, pages_of(which, plan, 0).size(), {}});

  const unsigned first = plan.warm_up ? 0 : 1;
  for (unsigned round = first; round <= plan.rounds; ++round) {
    auto figure = report.figures.begin();
    for (const auto& peer : peers) {
      for (const Case which : plan.cases) {
        if (!peer->can(which)) continue;
        const Status ran = one_run(*peer, plan, round, report, *figure);
        if (!ran.ok()) return ran.with_context(peer->name() + ", " + std::string(case_name(which)));
        if (round == 0) figure->rounds.clear(), figure->accesses.clear();
        ++figure;
      }
    }
  }
  return report;
}

}  // namespace rmem::bench
