// SPDX-License-Identifier: MIT
#include "control/verbs.hh"

#include <unistd.h>

#include "control/fields.hh"

namespace rmem::control {
namespace {

nlohmann::json success(nlohmann::json members = nlohmann::json::object()) {
  members["ok"] = true;
  return members;
}

nlohmann::json result(const Status& status) {
  return status.ok() ? success() : Server::error(status);
}

Status malformed(const Status& what) {
  return Status(Code::kUsage, "control request: " + what.cause(),
                "use rmemctl and rmemd of one release");
}

}  // namespace

void Verbs::handle(const Peer& peer, const nlohmann::json& request, const Server::Reply& reply) {
  std::string verb, name;
  Fields fields(request);
  fields.take("verb", verb);
  fields.skip("id");
  if (verb == "attach") return attach(peer, request, reply);

  const bool named = verb == "detach" || verb == "sync" || verb == "drop" || verb == "pull" ||
                     verb == "record" || verb == "limit";
  bool force = false, stop = false;
  if (named) fields.take("name", name);
  if (verb == "detach") fields.take("force", force);
  if (verb == "record") fields.take("stop", stop);
  std::uint64_t offset = 0, length = 0;
  if (verb == "pull") {
    fields.take("offset", offset, INT64_MAX);
    fields.take("length", length, INT64_MAX);
  }
  std::optional<std::uint64_t> pull_rate, push_rate;
  if (verb == "limit") {
    fields.take("pull_rate", pull_rate);
    fields.take("push_rate", push_rate);
  }
  if (const Status s = fields.status(); !s.ok()) return reply(Server::error(malformed(s)));
  if (named && !valid_region_name(name)) {
    return reply(Server::error(Status(Code::kUsage, "`" + name + "' is not a region name")));
  }

  if (verb == "detach") {
    return regions_.detach(name, force, [reply](Result<Regions::Detached> detached) {
      if (!detached.ok()) return reply(Server::error(detached.status()));
      reply(success({{"warning", detached->warning}, {"lost_bytes", detached->lost_bytes}}));
    });
  }
  if (verb == "sync") {
    return regions_.sync(name, [reply](const Status& s) { reply(result(s)); });
  }
  if (verb == "drop") {
    return regions_.drop(name, [reply](const Status& s) { reply(result(s)); });
  }
  if (verb == "pull") {
    const auto number = regions_.pull(name, offset, length);
    return reply(number.ok() ? success({{"pull", *number}}) : Server::error(number.status()));
  }
  if (verb == "limit") return reply(result(regions_.limit(name, pull_rate, push_rate)));
  if (verb == "record" && !stop) {
    return regions_.record(name, [reply](const Status& s) { reply(result(s)); });
  }
  if (verb == "record") {
    const auto kept = regions_.stop_recording(name);
    return reply(kept.ok() ? success({{"ranges", kept->ranges}, {"bytes", kept->bytes}})
                           : Server::error(kept.status()));
  }
  if (verb == "status") return reply(success(regions_.status()));
  if (verb == "ping") {
    return reply(
        success({{"version", RMEM_VERSION}, {"pid", ::getpid()}, {"instance", instance_}}));
  }
  reply(Server::error(malformed(Status(Code::kUsage, "unknown verb `" + verb + "'"))));
}

void Verbs::attach(const Peer& peer, const nlohmann::json& request, const Server::Reply& reply) {
  nlohmann::json members = request;
  members.erase("verb");
  members.erase("id");
  auto options = options_from_json(members, defaults_);
  if (!options.ok()) return reply(Server::error(malformed(options.status())));
  if (!members.contains("uid")) options->uid = peer.uid;
  if (!members.contains("gid")) options->gid = peer.gid;
  if (const Status s = may_attach(peer, *options); !s.ok()) return reply(Server::error(s));
  regions_.attach(*options, [reply](Result<Regions::Attached> attached) {
    if (!attached.ok()) return reply(Server::error(attached.status()));
    reply(success({{"region_id", attached->id},
                   {"size_bytes", attached->size},
                   {"made", attached->made},
                   {"bind_created", attached->bind_created}}));
  });
}

// Whoever may use the socket may attach, but the daemon's rights are not lent:
// neither to open files of this host, nor to give regions to others.
Status Verbs::may_attach(const Peer& peer, const AttachOptions& o) const {
  if (peer.uid == 0) return Status();
  if (sources_.is_local(o.source)) {
    return Status(Code::kPermission,
                  o.source + ": only root may attach a store of this host, or use filters",
                  "export it with rmem-server, or run as root");
  }
  if (!o.bind.empty()) {
    return Status(Code::kPermission, "--bind: only root may mount", "run as root");
  }
  if (o.uid != peer.uid || !peer.in_group(o.gid)) {
    return Status(Code::kPermission, "--owner: only root may give a region to somebody else",
                  "leave --owner out, or run as root");
  }
  return Status();
}

}  // namespace rmem::control
