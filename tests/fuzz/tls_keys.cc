// SPDX-License-Identifier: MIT
// A file of shared keys: what is accepted has identities and long keys, and no complaint
// quotes a secret.
#include "fuzz/fuzz.hh"
#include "transport/tls_credentials.hh"

FUZZ_TARGET(tls_keys) {
  using namespace rmem;
  const auto keys = transport::parse_tls_keys(fuzz::text(input), "keys");
  if (!keys) {
    FUZZ_CHECK(keys.status().cause().starts_with("keys:"));
    FUZZ_CHECK(keys.status().cause().size() < 100);
    return;
  }
  FUZZ_CHECK(!keys->empty());
  for (const auto& [name, key] : *keys) FUZZ_CHECK(!name.empty() && key.bytes().size() >= 16);
}
