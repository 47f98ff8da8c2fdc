// SPDX-License-Identifier: MIT
// Stores as people write them: mem://1GiB, file:///path?size=1GiB,
// dir:///path?size=1GiB&chunk=1MiB, delay+file:///path?delay.read=5ms.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hh"
#include "base/workers.hh"
#include "store/filter.hh"
#include "store/store.hh"

namespace rmem::store {

// A local store, understood but not opened.
struct Spec {
  enum class Kind { kMem, kFile, kDir } kind{};
  std::string path;                    // of a file or directory
  std::optional<std::uint64_t> size;   // bytes; always there for mem
  std::optional<std::uint64_t> chunk;  // bytes, for dir
  std::vector<Filter> filters;         // on it, the outermost first
  std::string base;                    // the URI without them

  // kUsage for what is no STORE.
  static Result<Spec> parse(std::string_view text);
};

}  // namespace rmem::store
