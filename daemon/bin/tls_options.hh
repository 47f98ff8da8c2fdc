// SPDX-License-Identifier: MIT
// The flags about TLS, which both daemons have.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/cli.hh"
#include "transport/tls_config.hh"

namespace rmem {

// What is not given leaves what the configuration file says.
struct TlsFlags {
  std::optional<std::string> certificates, psk, kernel, congestion;
  std::optional<bool> verify_peer;

  void add(CLI::App& app, transport::TlsSide side) {
    const bool server = side == transport::TlsSide::kServer;
    const std::string own = server ? "server" : "client";
    app.add_option("--tls-certificates", certificates,
                   "directory with ca-cert.pem, " + own + "-cert.pem, " + own +
                       "-key.pem and, if any are revoked, ca-crl.pem")
        ->type_name("DIR");
    app.add_option("--tls-psk", psk, "file of shared keys, lines IDENTITY:HEX (psktool)")
        ->type_name("FILE");
    if (server)
      app.add_option("--tls-verify-peer", verify_peer,
                     "clients need a certificate of that authority [true]")
          ->type_name("BOOL");
    app.add_option("--ktls", kernel, "whether the kernel encrypts: auto, off or require [auto]")
        ->check(CLI::IsMember(words(transport::kTlsKernelWords)))
        ->type_name("HOW");
    app.add_option("--quic-congestion", congestion,
                   "congestion control of QUIC: bbr, cubic or reno [bbr]")
        ->check(CLI::IsMember(words(transport::kCongestionWords)))
        ->type_name("HOW");
  }

  void apply(transport::TlsOptions& options) const {
    if (certificates) options.certificates = *certificates;
    if (psk) options.psk = *psk;
    if (verify_peer) options.verify_peer = *verify_peer;
    for (const auto& [word, meaning] : transport::kTlsKernelWords)
      if (kernel == word) options.kernel = meaning;
    for (const auto& [word, meaning] : transport::kCongestionWords)
      if (congestion == word) options.congestion = meaning;
  }

 private:
  template <class Meanings>
  static std::vector<std::string> words(const Meanings& meanings) {
    std::vector<std::string> all;
    all.reserve(meanings.size());
    for (const auto& [word, meaning] : meanings) all.push_back(word);
    return all;
  }
};

}  // namespace rmem
