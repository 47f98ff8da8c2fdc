// SPDX-License-Identifier: MIT
// TLS as configuration files and command lines speak of it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/config_file.hh"
#include "transport/tls_credentials.hh"

namespace rmem::transport {

inline const std::vector<std::pair<std::string, TlsOptions::Kernel>> kTlsKernelWords = {
    {"auto", TlsOptions::Kernel::kAuto},
    {"off", TlsOptions::Kernel::kOff},
    {"require", TlsOptions::Kernel::kRequired}};

inline const std::vector<std::pair<std::string, TlsOptions::Congestion>> kCongestionWords = {
    {"bbr", TlsOptions::Congestion::kBbr},
    {"cubic", TlsOptions::Congestion::kCubic},
    {"reno", TlsOptions::Congestion::kReno}};

// The keys of a table [tls]. `options` must outlive it.
inline config::Table tls_keys(TlsSide side, TlsOptions& options) {
  config::Table keys;
  keys.key("certificates", config::text(options.certificates))
      .key("psk-file", config::text(options.psk))
      .key("kernel", config::word<TlsOptions::Kernel>(options.kernel, kTlsKernelWords))
      .key("quic-congestion",
           config::word<TlsOptions::Congestion>(options.congestion, kCongestionWords));
  if (side == TlsSide::kServer) keys.key("verify-peer", config::boolean(options.verify_peer));
  return keys;
}

}  // namespace rmem::transport
