// SPDX-License-Identifier: MIT
#include "server/access.hh"

#include <algorithm>
#include <array>

namespace rmem::server {
namespace {

constexpr std::array<std::string_view, 6> kKinds = {"cn", "dn", "dns", "email", "psk", "uri"};
constexpr std::size_t kMostDescribed = 300;

}  // namespace

AllowList usual_list(bool insecure) {
  AllowList list = {{std::string(kAnonymous), Access::kWrite},
                    {std::string(kLocal), Access::kWrite}};
  if (insecure) list.push_back({std::string(kAuthenticated), Access::kWrite});
  return list;
}

Access allowed(const AllowList& list, const Peer& peer) {
  const auto& names = peer.identities;
  const auto meant = [&](const std::string& identity) {
    if (identity == kLocal) return peer.local;
    if (names.empty()) return identity == kAnonymous;
    return identity == kAuthenticated ||
           std::find(names.begin(), names.end(), identity) != names.end();
  };
  Access most = Access::kNone;
  for (const Grant& grant : list) {
    if (meant(grant.identity)) most = std::max(most, grant.access);
  }
  return most;
}

Status check_identity(std::string_view identity) {
  if (identity == kAnonymous || identity == kAuthenticated || identity == kLocal) return Status();
  const auto colon = identity.find(':');
  const bool known =
      colon != std::string_view::npos && colon + 1 < identity.size() &&
      std::find(kKinds.begin(), kKinds.end(), identity.substr(0, colon)) != kKinds.end();
  if (known) return Status();
  return Status(Code::kUsage, "is not of the form KIND:NAME",
                "as in cn:alice, dn:CN=alice,O=Example, dns:host.example, email:a@b.example, "
                "uri:spiffe://example/a, psk:alice; or anonymous, authenticated, local");
}

std::string describe(const std::vector<std::string>& identities) {
  if (identities.empty()) return "nobody authenticated";
  std::string all;
  for (const std::string& one : identities) {
    if (all.size() + one.size() > kMostDescribed) return all + (all.empty() ? "..." : ", ...");
    all += (all.empty() ? "" : ", ") + one;
  }
  return all;
}

}  // namespace rmem::server
