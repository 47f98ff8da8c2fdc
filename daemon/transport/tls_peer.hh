// SPDX-License-Identifier: MIT
// Of a TLS session, whatever carries it: what the peer has to prove, what it has proved, and
// why it could not.
#pragma once

#include <gnutls/gnutls.h>

#include <string>
#include <vector>

#include "base/status.hh"
#include "transport/tls_credentials.hh"

namespace rmem::transport {

// What is demanded of the peer's certificate. The session refers to it and to `host`, so both
// must outlive it.
class TlsDemands {
 public:
  TlsDemands() = default;
  TlsDemands(const TlsDemands&) = delete;
  TlsDemands& operator=(const TlsDemands&) = delete;
  // `host`: of a client, the name or address that the server's certificate has to be for.
  void make(gnutls_session_t session, TlsSide side, const std::string& host);

 private:
  gnutls_typed_vdata_st list_[2] = {};
};

// Who the peer has proved to be: Connection::identities().
std::vector<std::string> tls_identities(gnutls_session_t session);

// The alert's name. What a peer sends may be no alert at all, and then no value of GnuTLS' type
// either.
std::string tls_alert(unsigned number);

// What it means that GnuTLS could not go on, with `result`. `who`: the peer, for messages.
Status tls_refusal(gnutls_session_t session, TlsSide side, int result, const std::string& who,
                   const std::string& host);

}  // namespace rmem::transport
