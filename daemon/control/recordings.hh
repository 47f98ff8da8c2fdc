// SPDX-License-Identifier: MIT
// The orders in which runs have touched stores, kept for the next time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hh"
#include "base/uuid.hh"
#include "pager/range.hh"

namespace rmem::control {

// A file for each store, by the store's identity: whatever name or chunk size it is attached
// with, the recording is of use. One that is damaged is none, and costs no more than its use:
// nothing is synced.
class Recordings {
 public:
  // In that directory, which is made when it is needed first.
  explicit Recordings(std::string directory) : directory_(std::move(directory)) {}

  // In place of what was kept before, which stays where there are no ranges.
  Status keep(const Uuid& store, std::uint64_t size, const std::vector<pager::Range>& ranges) const;

  // What was kept for a store of that size, in order; empty: nothing. kCorrupt: it cannot be
  // understood.
  Result<std::vector<pager::Range>> find(const Uuid& store, std::uint64_t size) const;

 private:
  std::string path(const Uuid& store) const;

  std::string directory_;
};

// {"schema":1,"identity":UUID,"size_bytes":N,"ranges":[[offset,length],...]}
std::string recording_to_json(const Uuid& store, std::uint64_t size,
                              const std::vector<pager::Range>& ranges);
// kCorrupt unless it is of that store and size, and every range has bytes and lies within.
Result<std::vector<pager::Range>> recording_from_json(const std::string& text, const Uuid& store,
                                                      std::uint64_t size);

}  // namespace rmem::control
