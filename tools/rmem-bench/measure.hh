// SPDX-License-Identifier: MIT
// Puts peers through the cases, side by side.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "peer.hh"

namespace rmem::bench {

// Pages that are measured one by one lie this far apart: in chunks, or fetch
// units, of their own.
inline constexpr std::uint64_t kApart = 256 << 10;

struct Plan {
  std::uint64_t size = 32 << 20;
  unsigned rounds = 5;
  bool warm_up = true;  // a round that does not count goes first
  std::uint64_t seed = 1;
  std::vector<Case> cases;
};

// One peer in one case. The figures are nanoseconds a page, one a round.
struct Figure {
  std::string peer;
  Case which;
  std::size_t pages;
  std::vector<double> rounds;
  std::vector<double> accesses = {};  // kRandom: nanoseconds of each, of all rounds

  double median() const;
  // Of the accesses, of which there have to be some; `part` in [0, 1].
  double quantile(double part) const;
  double least() const;
  double most() const;
};

struct Report {
  Plan plan;
  std::vector<Figure> figures;  // by peer, then by case
  std::uint64_t checked_pages = 0;
  std::chrono::nanoseconds checking{};  // not part of any figure
};

// In each round every peer has its turn, so that what changes with time changes
// all of them. After each run all pages that it accessed are checked, off the clock, and
// those that were overwritten are read again from where they had to be durable, and then
// get their old bytes back; the first wrong byte ends it all.
Result<Report> measure(const Plan& plan, std::span<const std::unique_ptr<Peer>> peers);

// The pages of a case, in the order of access; of several threads each takes the next.
std::vector<std::uint32_t> pages_of(Case which, const Plan& plan, unsigned round);

}  // namespace rmem::bench
