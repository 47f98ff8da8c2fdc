// SPDX-License-Identifier: MIT
// What was asked for when a region was attached, and what the daemon notes for
// its successor.
#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/result.hh"
#include "base/uuid.hh"

namespace rmem::control {

// Where regions appear as files; rmemfs is mounted there.
inline constexpr const char* kRegionDirectory = "/run/rmem/regions";
inline constexpr const char* kDefaultSocket = "/run/rmem/rmemd.sock";
inline constexpr const char* kDefaultInstance = "default";
inline constexpr const char* kDefaultStateDir = "/var/lib/rmem";

// The options of `attach`. Two of them are the same when operator== says so;
// what is left out there does not last: it is about one attach.
struct AttachOptions {
  std::string name;
  std::string source;  // URI; never a secret
  std::uint32_t chunk = 256u << 10;
  bool read_only = false;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t mode = 0600;
  std::string bind;           // absolute path, or empty
  bool bind_created = false;  // rmemctl made an empty file there
  std::string on_loss = "wait";
  std::uint64_t resident_limit = 0;  // bytes; 0: none
  std::uint64_t dirty_limit = 0;     // likewise
  std::uint64_t push_threshold = 0;  // likewise
  std::chrono::milliseconds fault_timeout{30'000};
  std::chrono::milliseconds sync_timeout{30'000};
  std::chrono::milliseconds push_interval{5'000};
  std::string pull = "none";    // in the background: all, or what was recorded
  std::uint64_t pull_rate = 0;  // bytes a second; 0: no limit. May have been changed since:
  std::uint64_t push_rate = 0;  // not compared either
  bool insecure = false;
  bool take_over = false;

  bool operator==(const AttachOptions& other) const;
};

// [A-Za-z0-9][A-Za-z0-9_.-]{0,63}
bool valid_region_name(const std::string& name);

// kUsage with the option's name unless every value is one that attach takes.
Status validate(const AttachOptions& options);

// As members of a control message. from_json refuses unknown members by name;
// `where` is one object, `name` and `source` included.
nlohmann::json to_json(const AttachOptions& options);
// What is not there is as `defaults` have it.
Result<AttachOptions> options_from_json(const nlohmann::json& where,
                                        const AttachOptions& defaults = {});

// The blob that the kernel keeps: the options, and what was learned since.
struct Notes {
  AttachOptions options;
  Uuid identity{};                     // of the store
  std::uint64_t claim_generation = 0;  // of the writer claim; 0: never had it

  std::string to_blob() const;
  // kFailed when the blob is none of ours or of a version unknown here.
  static Result<Notes> from_blob(const std::string& blob);
};

}  // namespace rmem::control
