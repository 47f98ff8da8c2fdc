// SPDX-License-Identifier: MIT
#include "measure.hh"

#include <algorithm>
#include <numeric>
#include <random>

namespace rmem::bench {
namespace {

using Clock = std::chrono::steady_clock;

Status one_run(Peer& peer, Case which, const std::vector<std::uint32_t>& pages, Report& report,
               double& ns_per_page) {
  if (Status ready = peer.prepare(which); !ready.ok()) return ready;
  const auto begin = Clock::now();
  const Status ran = peer.run(which, pages);
  const auto end = Clock::now();
  if (!ran.ok()) return ran;
  ns_per_page = std::chrono::duration<double, std::nano>(end - begin).count() /
                static_cast<double>(pages.size());
  for (const std::uint32_t page : pages)
    if (Status right = peer.check(page); !right.ok()) return right;
  report.checked_pages += pages.size();
  report.checking += Clock::now() - end;
  return Status();
}

}  // namespace

std::string_view case_name(Case which) {
  switch (which) {
    case Case::kSequential:
      return "sequential";
    case Case::kRandom:
      return "random";
    case Case::kResident:
      return "resident";
    case Case::kWrite:
      return "write";
  }
  return {};
}

std::vector<std::uint32_t> pages_of(Case which, const Plan& plan, unsigned round) {
  std::vector<std::uint32_t> pages;
  if (which != Case::kRandom) {
    pages.resize(plan.size / kPage);
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

double Figure::least() const { return *std::min_element(rounds.begin(), rounds.end()); }

double Figure::most() const { return *std::max_element(rounds.begin(), rounds.end()); }

Result<Report> measure(const Plan& plan, std::span<const std::unique_ptr<Peer>> peers) {
  Report report{.plan = plan};
  for (const auto& peer : peers)
    for (const Case which : plan.cases)
      if (peer->can(which))
        report.figures.push_back({peer->name(), which, pages_of(which, plan, 0).size(), {}});

  for (unsigned round = 0; round <= plan.rounds; ++round) {
    auto figure = report.figures.begin();
    for (const auto& peer : peers) {
      for (const Case which : plan.cases) {
        if (!peer->can(which)) continue;
        double ns = 0;
        const Status ran = one_run(*peer, which, pages_of(which, plan, round), report, ns);
        if (!ran.ok()) return ran.with_context(peer->name() + ", " + std::string(case_name(which)));
        if (round > 0) figure->rounds.push_back(ns);
        ++figure;
      }
    }
  }
  return report;
}

}  // namespace rmem::bench
