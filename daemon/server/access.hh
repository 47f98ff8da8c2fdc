// SPDX-License-Identifier: MIT
// Who may use an export. Pure logic.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.hh"

namespace rmem::server {

enum class Access { kNone, kRead, kWrite };

// What one identity may do: a name that a peer has proved (transport::Connection has the
// kinds), as it is, or one of the two words below.
struct Grant {
  std::string identity;
  Access access = Access::kNone;

  bool operator==(const Grant&) const = default;
};
using AllowList = std::vector<Grant>;

// Whoever has proved nothing: plain connections.
inline constexpr std::string_view kAnonymous = "anonymous";
// Whoever has proved to be anybody.
inline constexpr std::string_view kAuthenticated = "authenticated";

// Of an export without one: plain connections, as the listeners let them in, and nobody else.
AllowList open_to_plain_connections();

// The most that any of the peer's identities may; nothing, where none is in the list.
Access allowed(const AllowList& list, const std::vector<std::string>& identities);

// kUsage: cannot be an identity.
Status check_identity(std::string_view identity);

// For logs and for the peer: "cn:alice, dns:host.example", "nobody authenticated".
std::string describe(const std::vector<std::string>& identities);

}  // namespace rmem::server
