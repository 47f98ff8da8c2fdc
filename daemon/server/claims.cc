// SPDX-License-Identifier: MIT
#include "server/claims.hh"

#include <algorithm>
#include <cerrno>

namespace rmem::server {

ClaimAnswer decide(const ClaimRecord& record, std::uint64_t newest_session,
                   const ClaimRequest& request) {
  const bool mine = record.writer == request.writer;
  const bool fenced =
      std::find(record.fenced.begin(), record.fenced.end(), request.writer) != record.fenced.end();
  // Whoever was fenced has pages that are not the store's any more; not even
  // taking over makes them right.
  if (!mine && fenced) return {ESTALE, record};
  if (request.known != 0 && request.known != record.generation) return {ESTALE, record};
  if (mine && request.session < newest_session) return {ESTALE, record};
  if (mine) return {0, record};
  if (record.writer && !request.take_over) return {EBUSY, record};

  ClaimRecord next = record;
  ++next.generation;
  if (next.writer) {
    next.fenced.push_back(*next.writer);
    if (next.fenced.size() > kFencedKept) next.fenced.erase(next.fenced.begin());
  }
  next.writer = request.writer;
  return {0, next};
}

ClaimRecord released(const ClaimRecord& record) {
  ClaimRecord next = record;
  next.writer.reset();
  return next;
}

}  // namespace rmem::server
