// SPDX-License-Identifier: MIT
// Certificates for tests, made anew each time: good ones and all that can be wrong with one.
#pragma once

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <sys/stat.h>

#include <array>
#include <cstdint>
#include <ctime>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "transport/tls_credentials.hh"

namespace rmem::test {

inline void gnutls_ok(int result) {
  if (result < 0) throw std::runtime_error(gnutls_strerror(result));
}

inline void write_secret(const std::string& path, const std::string& text) {
  std::ofstream(path) << text;
  ::chmod(path.c_str(), 0600);
}

class CertificateAuthority {
 public:
  struct Wish {
    std::string cn = "localhost";
    std::vector<std::string> dns;       // names
    std::vector<std::uint8_t> address;  // an IP address, in network order
    std::vector<std::string> emails;
    std::time_t begins = -3600, ends = 3600;  // seconds from now
    const char* purpose = GNUTLS_KP_TLS_WWW_SERVER;
  };

  // `ends`: seconds from now.
  explicit CertificateAuthority(const std::string& name = "rmem test authority",
                                std::time_t ends = 3600) {
    make_key(key_);
    Wish wish;
    wish.cn = name;
    wish.ends = ends;
    begin(certificate_, key_, wish);
    gnutls_ok(gnutls_x509_crt_set_basic_constraints(certificate_, 1, -1));
    gnutls_ok(gnutls_x509_crt_set_key_usage(certificate_,
                                            GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN));
    gnutls_ok(gnutls_x509_crt_sign2(certificate_, certificate_, key_, GNUTLS_DIG_SHA256, 0));
  }
  ~CertificateAuthority() {
    gnutls_x509_crt_deinit(certificate_);
    gnutls_x509_privkey_deinit(key_);
  }
  CertificateAuthority(const CertificateAuthority&) = delete;
  CertificateAuthority& operator=(const CertificateAuthority&) = delete;

  // ca-cert.pem in `directory`, which exists.
  void trust(const std::string& directory) const {
    std::ofstream(directory + "/ca-cert.pem") << pem(certificate_);
  }
  // SIDE-cert.pem and SIDE-key.pem; gives the serial number.
  std::uint8_t issue(const std::string& directory, const std::string& side, const Wish& wish) {
    gnutls_x509_privkey_t key;
    gnutls_x509_crt_t certificate;
    make_key(key);
    begin(certificate, key, wish);
    for (const std::string& name : wish.dns) add_name(certificate, GNUTLS_SAN_DNSNAME, name);
    for (const std::string& name : wish.emails) add_name(certificate, GNUTLS_SAN_RFC822NAME, name);
    if (!wish.address.empty())
      gnutls_ok(gnutls_x509_crt_set_subject_alt_name(
          certificate, GNUTLS_SAN_IPADDRESS, wish.address.data(),
          static_cast<unsigned>(wish.address.size()), GNUTLS_FSAN_APPEND));
    gnutls_ok(gnutls_x509_crt_set_key_usage(certificate, GNUTLS_KEY_DIGITAL_SIGNATURE));
    gnutls_ok(gnutls_x509_crt_set_key_purpose_oid(certificate, wish.purpose, 0));
    gnutls_ok(gnutls_x509_crt_sign2(certificate, certificate_, key_, GNUTLS_DIG_SHA256, 0));
    std::ofstream(directory + "/" + side + "-cert.pem") << pem(certificate);
    write_secret(directory + "/" + side + "-key.pem", pem(key));
    gnutls_x509_crt_deinit(certificate);
    gnutls_x509_privkey_deinit(key);
    return serial_;
  }
  // ca-crl.pem, with one more in it.
  void revoke(const std::string& directory, std::uint8_t serial, std::time_t ends = 3600) {
    revoked_.push_back(serial);
    gnutls_x509_crl_t list;
    gnutls_ok(gnutls_x509_crl_init(&list));
    const std::time_t now = std::time(nullptr);
    gnutls_ok(gnutls_x509_crl_set_version(list, 2));
    gnutls_ok(gnutls_x509_crl_set_this_update(list, now - 60));
    gnutls_ok(gnutls_x509_crl_set_next_update(list, now + ends));
    for (const std::uint8_t one : revoked_)
      gnutls_ok(gnutls_x509_crl_set_crt_serial(list, &one, 1, now - 60));
    gnutls_ok(gnutls_x509_crl_set_number(list, &serial_, 1));
    gnutls_ok(gnutls_x509_crl_sign2(list, certificate_, key_, GNUTLS_DIG_SHA256, 0));
    gnutls_datum_t text;
    gnutls_ok(gnutls_x509_crl_export2(list, GNUTLS_X509_FMT_PEM, &text));
    std::ofstream(directory + "/ca-crl.pem") << take(text);
    gnutls_x509_crl_deinit(list);
  }

 private:
  static void make_key(gnutls_x509_privkey_t& key) {
    gnutls_ok(gnutls_x509_privkey_init(&key));
    gnutls_ok(gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA,
                                           GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0));
  }
  void begin(gnutls_x509_crt_t& certificate, gnutls_x509_privkey_t key, const Wish& wish) {
    const std::time_t now = std::time(nullptr);
    gnutls_ok(gnutls_x509_crt_init(&certificate));
    gnutls_ok(gnutls_x509_crt_set_version(certificate, 3));
    ++serial_;
    gnutls_ok(gnutls_x509_crt_set_serial(certificate, &serial_, 1));
    gnutls_ok(gnutls_x509_crt_set_activation_time(certificate, now + wish.begins));
    gnutls_ok(gnutls_x509_crt_set_expiration_time(certificate, now + wish.ends));
    gnutls_ok(gnutls_x509_crt_set_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0,
                                            wish.cn.data(), static_cast<unsigned>(wish.cn.size())));
    gnutls_ok(gnutls_x509_crt_set_key(certificate, key));
  }
  static void add_name(gnutls_x509_crt_t certificate, gnutls_x509_subject_alt_name_t kind,
                       const std::string& name) {
    gnutls_ok(gnutls_x509_crt_set_subject_alt_name(
        certificate, kind, name.data(), static_cast<unsigned>(name.size()), GNUTLS_FSAN_APPEND));
  }
  static std::string take(gnutls_datum_t& text) {
    std::string taken(reinterpret_cast<const char*>(text.data), text.size);
    gnutls_free(text.data);
    return taken;
  }
  static std::string pem(gnutls_x509_crt_t certificate) {
    gnutls_datum_t text;
    gnutls_ok(gnutls_x509_crt_export2(certificate, GNUTLS_X509_FMT_PEM, &text));
    return take(text);
  }
  static std::string pem(gnutls_x509_privkey_t key) {
    gnutls_datum_t text;
    gnutls_ok(gnutls_x509_privkey_export2(key, GNUTLS_X509_FMT_PEM, &text));
    return take(text);
  }

  gnutls_x509_privkey_t key_ = nullptr;
  gnutls_x509_crt_t certificate_ = nullptr;
  std::uint8_t serial_ = 0;
  std::vector<std::uint8_t> revoked_;
};

// Files in `directory` by which a server called localhost and a client called alice believe
// each other: certificates, or a shared key.
inline transport::TlsOptions make_tls_files(const std::string& directory, bool psk = false) {
  transport::TlsOptions options;
  options.kernel = transport::TlsOptions::Kernel::kOff;
  if (psk) {
    options.psk = directory + "/keys";
    write_secret(options.psk, "alice:00112233445566778899aabbccddeeff\n");
    return options;
  }
  CertificateAuthority authority;
  authority.trust(directory);
  authority.issue(directory, "server", {.dns = {"localhost"}});
  authority.issue(directory, "client", {.cn = "alice", .purpose = GNUTLS_KP_TLS_WWW_CLIENT});
  options.certificates = directory;
  return options;
}

}  // namespace rmem::test
