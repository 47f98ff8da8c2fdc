// SPDX-License-Identifier: MIT
// TLS in the kernel: the keys of a finished handshake go into the socket, which from then on
// takes and gives plain bytes, to modules as well.
#pragma once

#include <gnutls/gnutls.h>

#include <cstdint>
#include <string>

#include "base/status.hh"
#include "transport/transport.hh"

namespace rmem::transport {

enum class KtlsOutcome {
  kInstalled,  // both directions
  kNotThere,   // nothing has changed: the kernel has no TLS, or not this cipher
  kBroken,     // one direction only: the connection is lost
};

// `session`: TLS 1.3, its handshake over and none of its records under way. `why`: of what
// was not installed.
KtlsOutcome ktls_install(int socket, gnutls_session_t session, std::string& why);

// Receives the record of `socket` that recv() has said EIO for.
struct KtlsRecord {
  enum class Kind { kNone, kClosed, kAlert, kIgnored, kOther } kind = Kind::kNone;
  std::string text;
};
KtlsRecord ktls_receive_record(int socket);

// Records that `socket` has sent or received with its keys, whichever is more.
std::uint64_t ktls_records(int socket);

// Tells the peer that no more will come; best effort.
void ktls_close_notify(int socket);

}  // namespace rmem::transport
