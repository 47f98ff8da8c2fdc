// SPDX-License-Identifier: MIT
#include "server/admission.hh"

namespace rmem::server {

std::string_view Admission::enter(const std::string& host) {
  if (all_ >= limits_.connections) return "too many connections";
  const auto known = hosts_.find(host);
  const Count count = known != hosts_.end() ? known->second : Count{};
  if (limits_.per_host != 0 && count.all >= limits_.per_host)
    return "too many connections of one address";
  if (limits_.unopened_per_host != 0 && count.unopened >= limits_.unopened_per_host)
    return "too many connections of one address that have opened nothing";
  ++all_;
  hosts_[host] = {count.all + 1, count.unopened + 1};
  return {};
}

void Admission::opened(const std::string& host) { --hosts_[host].unopened; }

void Admission::leave(const std::string& host, bool had_opened) {
  const auto known = hosts_.find(host);
  --all_;
  if (!had_opened) --known->second.unopened;
  if (--known->second.all == 0) hosts_.erase(known);
}

}  // namespace rmem::server
