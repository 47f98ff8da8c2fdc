// SPDX-License-Identifier: MIT
// Who may write to a store: docs/protocol.md, CLAIM and RELEASE. Pure logic.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/uuid.hh"

namespace rmem::server {

// What survives the server.
struct ClaimRecord {
  std::uint64_t generation = 0;  // of the latest claim; 0 = there never was one
  std::optional<Uuid> writer;    // who has it
  std::vector<Uuid> fenced;      // who lost it to another, the latest last

  bool operator==(const ClaimRecord&) const = default;
};

// Writers that are remembered as fenced; a claim that was lost longer ago is
// still recognised by its generation.
inline constexpr std::size_t kFencedKept = 64;

struct ClaimRequest {
  Uuid writer{};
  std::uint64_t session = 0;  // number of the session, growing
  std::uint64_t known = 0;    // the generation that the writer remembers
  bool take_over = false;
};

// The record after `request` has been granted, or the errno with which it is
// refused: EBUSY or ESTALE. `newest_session`: the highest number the present
// writer has claimed with in this life of the server.
struct ClaimAnswer {
  int err = 0;
  ClaimRecord record;
};
ClaimAnswer decide(const ClaimRecord& record, std::uint64_t newest_session,
                   const ClaimRequest& request);

// The record after its writer has let go.
ClaimRecord released(const ClaimRecord& record);

}  // namespace rmem::server
