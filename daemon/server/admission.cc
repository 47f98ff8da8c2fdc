// SPDX-License-Identifier: MIT
#include "server/admission.hh"

#include <arpa/inet.h>

#include <algorithm>

namespace rmem::server {

std::string Admission::host_of(const std::string& peer) {
  const auto colon = peer.rfind(':');
  const auto bracket = peer.rfind(']');
  const bool six = !peer.empty() && peer[0] == '[' && bracket != std::string::npos;
  if (!six) return peer.substr(0, colon);
  std::string address = peer.substr(1, bracket - 1);
  address.resize(std::min(address.size(), address.find('%')));  // a scope
  in6_addr bytes;
  if (::inet_pton(AF_INET6, address.c_str(), &bytes) != 1) return address;
  char text[INET6_ADDRSTRLEN];
  if (IN6_IS_ADDR_V4MAPPED(&bytes)) {
    ::inet_ntop(AF_INET, bytes.s6_addr + 12, text, sizeof text);
    return text;
  }
  std::fill(bytes.s6_addr + 8, bytes.s6_addr + 16, std::uint8_t{0});
  ::inet_ntop(AF_INET6, &bytes, text, sizeof text);
  return std::string(text) + "/64";
}

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
