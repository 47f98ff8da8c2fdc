// SPDX-License-Identifier: MIT
#include "transport/tls_peer.hh"

#include <arpa/inet.h>
#include <gnutls/x509.h>

#include <algorithm>
#include <cerrno>

namespace rmem::transport {
namespace {

bool is_address(const std::string& host) {
  in6_addr address;
  return ::inet_pton(AF_INET, host.c_str(), &address) == 1 ||
         ::inet_pton(AF_INET6, host.c_str(), &address) == 1;
}

std::string take(gnutls_datum_t& text) {
  std::string taken(reinterpret_cast<const char*>(text.data), text.size);
  gnutls_free(text.data);
  text.data = nullptr;
  return taken;
}

// Logs and lists have one line for each.
bool printable(const std::string& name) {
  return !name.empty() && std::all_of(name.begin(), name.end(),
                                      [](unsigned char c) { return c >= 0x20 && c != 0x7f; });
}

}  // namespace

void TlsDemands::make(gnutls_session_t session, TlsSide side, const std::string& host) {
  // A certificate for the other role would do for whoever has stolen one.
  unsigned count = 0;
  const bool client = side == TlsSide::kClient;
  const char* const purpose = client ? GNUTLS_KP_TLS_WWW_SERVER : GNUTLS_KP_TLS_WWW_CLIENT;
  list_[count].type = GNUTLS_DT_KEY_PURPOSE_OID;
  list_[count++].data = reinterpret_cast<unsigned char*>(const_cast<char*>(purpose));
  if (client) {
    list_[count].type = GNUTLS_DT_DNS_HOSTNAME;
    list_[count].size = static_cast<unsigned>(host.size());
    list_[count++].data = reinterpret_cast<unsigned char*>(const_cast<char*>(host.data()));
    if (!is_address(host))
      gnutls_server_name_set(session, GNUTLS_NAME_DNS, host.data(), host.size());
  }
  gnutls_session_set_verify_cert2(session, list_, count, 0);
}

std::vector<std::string> tls_identities(gnutls_session_t session) {
  std::vector<std::string> identities;
  if (const char* const name = gnutls_psk_server_get_username(session); name != nullptr) {
    if (printable(name)) identities.push_back(std::string("psk:") + name);
    return identities;
  }
  unsigned count = 0;
  const gnutls_datum_t* const chain = gnutls_certificate_get_peers(session, &count);
  gnutls_x509_crt_t certificate = nullptr;
  if (chain == nullptr || count == 0 || gnutls_x509_crt_init(&certificate) != 0) return identities;
  if (gnutls_x509_crt_import(certificate, chain, GNUTLS_X509_FMT_DER) == 0) {
    const auto add = [&identities](const char* kind, const std::string& name) {
      if (printable(name)) identities.push_back(std::string(kind) + ":" + name);
    };
    char text[256];
    std::size_t size = sizeof text;
    if (gnutls_x509_crt_get_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0, 0, text,
                                      &size) == 0)
      add("cn", std::string(text, size));
    gnutls_datum_t dn = {};
    if (gnutls_x509_crt_get_dn3(certificate, &dn, 0) == 0) add("dn", take(dn));
    for (unsigned i = 0;; ++i) {
      size = sizeof text;
      const int type = gnutls_x509_crt_get_subject_alt_name(certificate, i, text, &size, nullptr);
      if (type == GNUTLS_E_SHORT_MEMORY_BUFFER) continue;
      if (type < 0) break;
      const std::string name(text, size);
      if (type == GNUTLS_SAN_DNSNAME) add("dns", name);
      if (type == GNUTLS_SAN_RFC822NAME) add("email", name);
      if (type == GNUTLS_SAN_URI) add("uri", name);
    }
  }
  gnutls_x509_crt_deinit(certificate);
  return identities;
}

std::string tls_alert(unsigned number) {
  const char* const name =
      number <= GNUTLS_A_MAX
          ? gnutls_alert_get_name(static_cast<gnutls_alert_description_t>(number))
          : nullptr;
  return name != nullptr ? name : "unknown alert";
}

Status tls_refusal(gnutls_session_t session, TlsSide side, int result, const std::string& who,
                   const std::string& host) {
  const bool client = side == TlsSide::kClient;
  switch (result) {
    case GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR: {
      gnutls_datum_t text = {};
      std::string why = "not trusted";
      if (gnutls_certificate_verification_status_print(
              gnutls_session_get_verify_cert_status(session), GNUTLS_CRT_X509, &text, 0) == 0)
        why = take(text);
      while (why.ends_with(' ')) why.pop_back();
      return Status(
          Code::kPermission,
          who + ": its certificate" + (client ? " for `" + host + "'" : "") + " is refused: " + why,
          client ? "see ca-cert.pem here and server-cert.pem there" : "", EACCES);
    }
    case GNUTLS_E_NO_CERTIFICATE_FOUND:
    case GNUTLS_E_CERTIFICATE_REQUIRED:
      return Status(Code::kPermission, who + ": it has shown no certificate", {}, EACCES);
    case GNUTLS_E_FATAL_ALERT_RECEIVED: {
      return Status(
          Code::kPermission, who + " has refused us: " + tls_alert(gnutls_alert_get(session)),
          client ? "has it our certificate or key, and is it valid? See its log" : "", EACCES);
    }
    case GNUTLS_E_DECRYPTION_FAILED:
    case GNUTLS_E_RECEIVED_ILLEGAL_PARAMETER:
      return Status(Code::kPermission, who + ": wrong key, or damaged on the way", {}, EACCES);
    case GNUTLS_E_UNEXPECTED_PACKET:
    case GNUTLS_E_UNEXPECTED_PACKET_LENGTH:
    case GNUTLS_E_UNSUPPORTED_VERSION_PACKET:
    case GNUTLS_E_RECORD_OVERFLOW:
      return Status(Code::kFailed, who + " does not speak TLS",
                    client ? "a listener in clear needs rmem://, one of TLS is tls:// there"
                           : "a client needs rmems:// for this listener",
                    EPROTO);
    case GNUTLS_E_PREMATURE_TERMINATION:
    case GNUTLS_E_PULL_ERROR:
    case GNUTLS_E_PUSH_ERROR:
      return Status(Code::kUnreachable, who + " closed the connection during the TLS handshake",
                    client ? "is that a tls:// listener? See its log" : "", ECONNRESET);
    default:
      return Status(Code::kFailed, who + ": TLS: " + gnutls_strerror(result), {}, EPROTO);
  }
}

}  // namespace rmem::transport
