// SPDX-License-Identifier: MIT
// What was measured, for people and for programs.
#pragma once

#include <string>

#include "measure.hh"

namespace rmem::bench {

// A line for each peer, a column for each case; beside each figure its ratio to
// the case's yardstick: tcp, or where that has none uffd-4k or tmpfs.
std::string table(const Report& report);

// A header, then "peer case pages median_ns least_ns most_ns p50_ns p99_ns", a figure a line; the
// last two are `-' where accesses were not timed one by one.
std::string tsv(const Report& report);

// {"schema":1,"size_bytes":...,"figures":[{"peer":...,"case":...,...}]}
std::string json(const Report& report);

}  // namespace rmem::bench
