// SPDX-License-Identifier: MIT
#include <fmt/core.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <fstream>
#include <iterator>
#include <optional>
#include <utility>

#include "base/config_file.hh"
#include "doctor.hh"
#include "transport/quic.hh"
#include "transport/tls_config.hh"

namespace rmem::ctl {
namespace {

using transport::TlsCredentials;
using transport::TlsOptions;
using transport::TlsSide;

constexpr std::time_t kDay = 24 * 3600;
constexpr std::time_t kSoon = 14 * kDay;
constexpr const char* kOldestGnuTls = "3.7.0";

struct Program {
  const char* name;
  const char* config;
  TlsSide side;
};
constexpr Program kPrograms[] = {{"rmemd", "/etc/rmem/rmemd.toml", TlsSide::kClient},
                                 {"rmem-server", "/etc/rmem/rmem-server.toml", TlsSide::kServer}};

std::string date(std::time_t time) {
  std::tm utc = {};
  char text[sizeof "2026-01-02"];
  return ::gmtime_r(&time, &utc) && std::strftime(text, sizeof text, "%F", &utc) ? text : "?";
}

// When the first certificate in it ends; absent: there is none, or it cannot be read.
std::optional<std::time_t> end_of_certificates(const std::string& pem) {
  const gnutls_datum_t data = {reinterpret_cast<unsigned char*>(const_cast<char*>(pem.data())),
                               static_cast<unsigned>(pem.size())};
  gnutls_x509_crt_t* list = nullptr;
  unsigned count = 0;
  if (gnutls_x509_crt_list_import2(&list, &count, &data, GNUTLS_X509_FMT_PEM, 0) < 0)
    return std::nullopt;
  std::optional<std::time_t> end;
  for (unsigned i = 0; i < count; ++i) {
    const std::time_t one = gnutls_x509_crt_get_expiration_time(list[i]);
    end = end ? std::min(*end, one) : one;
    gnutls_x509_crt_deinit(list[i]);
  }
  gnutls_free(list);
  return end;
}

// When the list of what was revoked has to be followed by the next one.
std::optional<std::time_t> end_of_revocations(const std::string& pem) {
  const gnutls_datum_t data = {reinterpret_cast<unsigned char*>(const_cast<char*>(pem.data())),
                               static_cast<unsigned>(pem.size())};
  gnutls_x509_crl_t list = nullptr;
  if (gnutls_x509_crl_init(&list) < 0) return std::nullopt;
  std::optional<std::time_t> end;
  if (gnutls_x509_crl_import(list, &data, GNUTLS_X509_FMT_PEM) >= 0) {
    const std::time_t next = gnutls_x509_crl_get_next_update(list);
    if (next != static_cast<std::time_t>(-1)) end = next;
  }
  gnutls_x509_crl_deinit(list);
  return end;
}

class TlsExamination {
 public:
  explicit TlsExamination(const Machine& machine) : machine_(machine) {}

  std::vector<Check> run() {
    std::vector<Check> files;
    for (const Program& program : kPrograms)
      if (auto check = of(program)) files.push_back(std::move(*check));
    kernel();
    library();
    quic();
    std::move(files.begin(), files.end(), std::back_inserter(checks_));
    return std::move(checks_);
  }

 private:
  Check make(std::string name, Verdict verdict, std::string detail, std::string remedy = {}) const {
    return {std::move(name), verdict, std::move(detail), std::move(remedy)};
  }
  bool exists(const std::string& path) const {
    struct stat st;
    return machine_.stat((machine_.root + path).c_str(), &st) == 0;
  }
  std::optional<std::string> read(const std::string& path) const {
    std::ifstream file(machine_.root + path, std::ios::binary);
    if (!file) return std::nullopt;
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
  // As somebody would say it who sees the machine from within.
  std::string inside(std::string text) const {
    if (machine_.root.empty()) return text;
    for (std::size_t at; (at = text.find(machine_.root)) != std::string::npos;)
      text.erase(at, machine_.root.size());
    return text;
  }

  void kernel() {
    std::string release = read("/proc/sys/kernel/osrelease").value_or("");
    release.resize(std::min(release.size(), release.find('\n')));
    const std::string modules = "/lib/modules/" + release;
    const std::string builtin = read(modules + "/modules.builtin").value_or("");
    bool installed = false;
    for (const char* suffix : {"", ".xz", ".zst", ".gz"})
      installed = installed || exists(modules + "/kernel/net/tls/tls.ko" + suffix);
    if (exists("/sys/module/tls") || builtin.find("/net/tls/tls.ko\n") != std::string::npos)
      return checks_.push_back(make("ktls", Verdict::kOk, "the kernel has TLS"));
    // Who opens a connection may load it only with CAP_NET_ADMIN, which the units do
    // without: systemd loads it for them.
    const std::string what =
        installed ? "the module tls is not loaded" : "this kernel has no module tls";
    if (!wanted_)
      return checks_.push_back(
          make("ktls", Verdict::kSkipped, what + "; no configuration asks for it"));
    checks_.push_back(make(
        "ktls", Verdict::kFinding, what + ": TLS is calculated in user space, and bytes are copied",
        installed ? "modprobe tls, and echo tls >/etc/modules-load.d/tls.conf for the next boot"
                  : "boot a kernel with CONFIG_TLS, or say kernel = \"off\" below [tls]"));
  }

  void library() {
    const char* const version = gnutls_check_version(nullptr);
    if (gnutls_check_version(kOldestGnuTls) != nullptr)
      return checks_.push_back(make("gnutls", Verdict::kOk, version));
    checks_.push_back(make("gnutls", Verdict::kFinding,
                           fmt::format("{} is older than {}", version, kOldestGnuTls),
                           "apt install libgnutls30"));
  }

  // Of these programs, which are built together. Nobody needs it who does not want it.
  void quic() {
    const char* const version = transport::quic_version();
    checks_.push_back(make(
        "quic", Verdict::kOk,
        version != nullptr ? fmt::format("ngtcp2 {}", version) : transport::quic_absent().cause()));
  }

  // Absent: it has no configuration, or one that says nothing about TLS.
  std::optional<Check> of(const Program& program) {
    const std::string name = std::string("tls ") + program.name;
    if (!exists(program.config)) return std::nullopt;
    const std::string check_config = fmt::format("{} --check-config", program.name);
    TlsOptions options;
    config::Table root;
    root.key("tls", config::table(transport::tls_keys(program.side, options))).ignore_others();
    if (const Status understood = config::read(machine_.root + program.config, root);
        !understood.ok()) {
      if (understood.err() == EACCES)
        return make(name, Verdict::kSkipped, inside(understood.cause()));
      return make(name, Verdict::kFinding, inside(understood.cause()), check_config);
    }
    if (!options.configured()) return std::nullopt;
    wanted_ = wanted_ || options.kernel != TlsOptions::Kernel::kOff;
    for (std::string* const path : {&options.certificates, &options.psk})
      if (!path->empty()) *path = machine_.root + *path;
    const auto loaded = TlsCredentials::load(program.side, options);
    if (!loaded.ok()) {
      const Status& why = loaded.status();
      // What root alone may read is none of our business.
      if (why.err() == EACCES && ::geteuid() != 0)
        return make(name, Verdict::kSkipped, inside(why.cause()));
      return make(name, Verdict::kFinding, inside(why.cause()),
                  why.hint().empty() ? "see rmem-security(7) for how these files are made"
                                     : inside(why.hint()));
    }
    return expiry(name, program.side, options);
  }

  Check expiry(const std::string& name, TlsSide side, const TlsOptions& options) const {
    if (options.certificates.empty())
      return make(name, Verdict::kOk, "keys of " + inside(options.psk));
    const std::string directory = inside(options.certificates);
    const std::string own = side == TlsSide::kServer ? "/server-cert.pem" : "/client-cert.pem";
    std::optional<std::time_t> first;
    std::string which;
    for (const std::string& file : {std::string("/ca-cert.pem"), own, std::string("/ca-crl.pem")}) {
      const auto pem = read(directory + file);
      if (!pem) continue;
      const auto end = file == "/ca-crl.pem" ? end_of_revocations(*pem) : end_of_certificates(*pem);
      if (!end || (first && *first <= *end)) continue;
      first = end;
      which = directory + file;
    }
    if (!first) return make(name, Verdict::kOk, "files of " + directory);
    const std::time_t now = std::time(nullptr);
    if (*first > now + kSoon)
      return make(name, Verdict::kOk, fmt::format("good until {}: {}", date(*first), which));
    return make(name, Verdict::kFinding,
                *first <= now ? fmt::format("{} has expired on {}", which, date(*first))
                              : fmt::format("{} expires in {} days, on {}", which,
                                            (*first - now) / kDay, date(*first)),
                "make it anew (rmem-security(7)): it is used from the next connection on, without "
                "a restart");
  }

  const Machine& machine_;
  std::vector<Check> checks_;
  bool wanted_ = false;  // by some configuration, the kernel's TLS
};

}  // namespace

std::vector<Check> examine_tls(const Machine& machine) { return TlsExamination(machine).run(); }

}  // namespace rmem::ctl
