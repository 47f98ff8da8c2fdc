// SPDX-License-Identifier: MIT
// From a control request to the registry of regions, and back.
#pragma once

#include <string>

#include "control/regions.hh"
#include "control/server.hh"
#include "control/socket.hh"
#include "control/source.hh"

namespace rmem::control {

// Carries out one request of `peer`. Everything that comes from the peer is
// checked here: types, unknown members, and what only root may ask.
class Verbs {
 public:
  Verbs(Regions& regions, const SourceFactory& sources, std::string instance)
      : regions_(regions), sources_(sources), instance_(std::move(instance)) {}

  void handle(const Peer& peer, const nlohmann::json& request, const Server::Reply& reply);

 private:
  void attach(const Peer& peer, const nlohmann::json& request, const Server::Reply& reply);
  Status may_attach(const Peer& peer, const AttachOptions& options) const;

  Regions& regions_;
  const SourceFactory& sources_;
  std::string instance_;
};

}  // namespace rmem::control
