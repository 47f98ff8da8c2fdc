// SPDX-License-Identifier: MIT
// From a control request to the registry of regions, and back.
#pragma once

#include <string>

#include "control/options.hh"
#include "control/regions.hh"
#include "control/server.hh"
#include "control/socket.hh"
#include "control/source.hh"

namespace rmem::control {

// Carries out one request of `peer`. Everything that comes from the peer is
// checked here: types, unknown members, and what only root may ask.
class Verbs {
 public:
  // `defaults`: of attach, where the request does not say. May change; not owned.
  Verbs(Regions& regions, const SourceFactory& sources, std::string instance,
        const AttachOptions& defaults)
      : regions_(regions), sources_(sources), instance_(std::move(instance)), defaults_(defaults) {}

  void handle(const Peer& peer, const nlohmann::json& request, const Server::Reply& reply);

 private:
  void attach(const Peer& peer, const nlohmann::json& request, const Server::Reply& reply);
  Status may_attach(const Peer& peer, const AttachOptions& options) const;

  Regions& regions_;
  const SourceFactory& sources_;
  std::string instance_;
  const AttachOptions& defaults_;
};

}  // namespace rmem::control
