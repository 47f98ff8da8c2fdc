// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

namespace rmem::pager {

// Bytes of a region.
struct Range {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;

  bool operator==(const Range&) const = default;
};

}  // namespace rmem::pager
