// SPDX-License-Identifier: MIT
#include "report.hh"

#include <fmt/format.h>

#include <iterator>
#include <nlohmann/json.hpp>

#include "base/units.hh"

namespace rmem::bench {
namespace {

std::string_view yardstick(Case which) {
  switch (which) {
    case Case::kSequential:
    case Case::kRandom:
    case Case::kRandom4:
    case Case::kRandom64:
    case Case::kOverwrite:
      return "tcp";
    case Case::kResident:
    case Case::kWarm:
      return "tmpfs";
    case Case::kWrite:
    case Case::kRewrite:
      return "uffd-4k";
  }
  return {};
}

const Figure* find(const Report& report, std::string_view peer, Case which) {
  for (const Figure& figure : report.figures)
    if (figure.peer == peer && figure.which == which) return &figure;
  return nullptr;
}

}  // namespace

std::string table(const Report& report) {
  std::string text = fmt::format("{:<16}", "ns a page");
  for (const Case which : report.plan.cases)
    text += fmt::format("{:>11}  {:<9}", case_name(which), fmt::format("/{}", yardstick(which)));
  text += '\n';
  std::string_view last;
  for (const Figure& figure : report.figures) {
    if (figure.peer == last) continue;
    last = figure.peer;
    text += fmt::format("{:<16}", last);
    for (const Case which : report.plan.cases) {
      const Figure* const mine = find(report, last, which);
      const Figure* const other = find(report, yardstick(which), which);
      text += mine ? fmt::format("{:>11.0f}", mine->median()) : fmt::format("{:>11}", "-");
      text += mine && other ? fmt::format("  {:<9.2f}", mine->median() / other->median())
                            : fmt::format("  {:<9}", "");
    }
    text.erase(text.find_last_not_of(' ') + 1);
    text += '\n';
  }
  text += fmt::format(
      "{} of {}; medians of {} rounds; {} pages checked in {:.1f} s, which no figure has in it\n",
      format_size(report.plan.size), kPage, report.plan.rounds, report.checked_pages,
      std::chrono::duration<double>(report.checking).count());
  return text;
}

std::string tsv(const Report& report) {
  std::string text = "peer\tcase\tpages\tmedian_ns\tleast_ns\tmost_ns\tp50_ns\tp99_ns\n";
  const auto quantile = [](const Figure& f, double part) {
    return f.accesses.empty() ? std::string("-") : fmt::format("{:.0f}", f.quantile(part));
  };
  for (const Figure& f : report.figures)
    fmt::format_to(std::back_inserter(text), "{}\t{}\t{}\t{:.0f}\t{:.0f}\t{:.0f}\t{}\t{}\n", f.peer,
                   case_name(f.which), f.pages, f.median(), f.least(), f.most(), quantile(f, 0.5),
                   quantile(f, 0.99));
  return text;
}

std::string json(const Report& report) {
  nlohmann::ordered_json figures = nlohmann::ordered_json::array();
  for (const Figure& f : report.figures) {
    figures.push_back({{"peer", f.peer},
                       {"case", case_name(f.which)},
                       {"pages", f.pages},
                       {"median_ns", f.median()},
                       {"least_ns", f.least()},
                       {"most_ns", f.most()},
                       {"rounds_ns", f.rounds}});
    if (f.accesses.empty()) continue;
    figures.back()["p50_ns"] = f.quantile(0.5);
    figures.back()["p99_ns"] = f.quantile(0.99);
  }
  const nlohmann::ordered_json document = {{"schema", 1},
                                           {"size_bytes", report.plan.size},
                                           {"page_bytes", kPage},
                                           {"seed", report.plan.seed},
                                           {"checked_pages", report.checked_pages},
                                           {"figures", std::move(figures)}};
  return document.dump() + '\n';
}

}  // namespace rmem::bench
