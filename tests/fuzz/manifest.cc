// SPDX-License-Identifier: MIT
// The manifest of a dir store. What is accepted is exactly what encode() gives.
#include <algorithm>
#include <vector>

#include "base/bytes.hh"
#include "base/crc32c.hh"
#include "fuzz/fuzz.hh"
#include "store/dir_manifest.hh"

FUZZ_TARGET(manifest) {
  using namespace rmem;
  using store::DirManifest;

  const auto check = [](std::span<const std::byte> bytes) {
    const auto manifest = DirManifest::decode(bytes);
    if (!manifest) {
      FUZZ_CHECK(!manifest.status().cause().empty());
      return;
    }
    FUZZ_CHECK(manifest->written.count() <= manifest->chunks());
    const auto again = manifest->encode();
    FUZZ_CHECK(std::equal(again.begin(), again.end(), bytes.begin(), bytes.end()));
  };
  check(input);
  // No chance finds a checksum: the same with a right one.
  std::vector<std::byte> with_sum(input.begin(), input.end());
  with_sum.resize(with_sum.size() + 4);
  const auto sum = crc32c(input);
  store_le<std::uint32_t>(&with_sum[input.size()], sum);
  check(with_sum);
}
