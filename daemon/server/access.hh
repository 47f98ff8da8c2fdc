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
// kinds), as it is, or one of the words below.
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
// Whoever is on this host, also if he has proved who he is.
inline constexpr std::string_view kLocal = "local";

struct Peer {
  const std::vector<std::string>& identities;
  bool local = false;
};

// Of an export without one: this host, and plain connections, as the listeners let them in;
// where everybody who reaches the port is trusted (`insecure`), everybody. Nobody else.
AllowList usual_list(bool insecure);

// The most that any of the peer's identities may; nothing, where none is in the list.
Access allowed(const AllowList& list, const Peer& peer);

// kUsage: cannot be an identity.
Status check_identity(std::string_view identity);

// For logs and for the peer: "cn:alice, dns:host.example", "nobody authenticated".
std::string describe(const std::vector<std::string>& identities);

}  // namespace rmem::server
