// SPDX-License-Identifier: MIT
#include "doctor.hh"

#include <fmt/core.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string_view>

#include "client.hh"
#include "control/options.hh"
#include "kchan/device.hh"

namespace rmem::ctl {
namespace {

constexpr const char* kGroup = "rmem";

class Examination {
 public:
  Examination(const Machine& machine, const std::string& socket)
      : machine_(machine), socket_(socket) {}

  std::vector<Check> run() {
    kernel();
    group();
    module();
    secure_boot();
    node("/dev/rmem", 0666, false);
    node("/dev/rmem_control", 0660, true);
    daemon();
    for (Check& check : examine_tls(machine_)) checks_.push_back(std::move(check));
    return std::move(checks_);
  }

 private:
  void ok(std::string name, std::string detail) {
    checks_.push_back({std::move(name), Verdict::kOk, std::move(detail), {}});
  }
  void skipped(std::string name, std::string why) {
    checks_.push_back({std::move(name), Verdict::kSkipped, std::move(why), {}});
  }
  void finding(std::string name, std::string detail, std::string remedy) {
    checks_.push_back({std::move(name), Verdict::kFinding, std::move(detail), std::move(remedy)});
  }

  std::optional<std::string> read(const std::string& path) const {
    std::ifstream file(machine_.root + path, std::ios::binary);
    if (!file) return std::nullopt;
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
  std::string first_line(const std::string& path) const {
    const std::string text = read(path).value_or("");
    return text.substr(0, text.find('\n'));
  }
  bool exists(const std::string& path) const {
    struct stat st;
    return machine_.stat((machine_.root + path).c_str(), &st) == 0;
  }
  // The number behind "NAME:" or "NAME  " in a file of such lines.
  std::optional<std::string> value_of(const std::string& path, std::string_view name) const {
    std::istringstream lines(read(path).value_or(""));
    for (std::string line; std::getline(lines, line);) {
      if (!line.starts_with(name)) continue;
      std::istringstream words(line.substr(name.size()));
      std::string word;
      words >> word;
      return word;
    }
    return std::nullopt;
  }

  void kernel() {
    release_ = first_line("/proc/sys/kernel/osrelease");
    const bool supported = release_.starts_with("6.1.") || release_.starts_with("6.12.");
    if (supported) {
      ok("kernel", release_);
    } else {
      finding("kernel", release_ + " is not of a series that rmem supports",
              "boot a kernel of the series 6.1 or 6.12");
    }
    loaded_ = exists("/sys/module/rmem");
    for (const char* directory : {"updates/dkms/", "updates/", "extra/"}) {
      for (const char* suffix : {"", ".xz", ".zst", ".gz"}) {
        const std::string file = "/lib/modules/" + release_ + "/" + directory + "rmem.ko" + suffix;
        if (installed_.empty() && exists(file)) installed_ = file;
      }
    }
    // Where the module is there already, only the next kernel needs headers.
    if (exists("/lib/modules/" + release_ + "/build/include")) {
      ok("headers", "those of the running kernel are installed");
    } else if (loaded_ || !installed_.empty()) {
      skipped("headers", "not installed, and not needed: the module is built");
    } else if (supported) {
      finding("headers",
              "those of the running kernel are not installed: the module cannot be built",
              "apt install linux-headers-" + release_);
    }
  }

  void group() {
    std::istringstream lines(read("/etc/group").value_or(""));
    for (std::string line; std::getline(lines, line);) {
      if (!line.starts_with(std::string(kGroup) + ":")) continue;
      const auto begin = line.find(':', line.find(':') + 1) + 1;
      unsigned gid = 0;
      if (std::from_chars(line.data() + begin, line.data() + line.size(), gid).ec == std::errc()) {
        gid_ = gid;
        return ok("group", fmt::format("{} is {}", kGroup, gid));
      }
    }
    finding("group", "there is no group rmem: only root may attach and detach regions",
            "systemd-sysusers, or groupadd --system rmem; then restart rmemd");
  }

  void module() {
    if (!loaded_) {
      return finding(
          "module",
          installed_.empty() ? "not loaded, and not installed for this kernel"
                             : "not loaded; installed as " + installed_,
          installed_.empty() ? "apt install rmem-dkms, or make dkms-install" : "modprobe rmem");
    }
    const std::string version = first_line("/sys/module/rmem/version");
    const std::string again =
        "stop rmemd, then modprobe -r rmem && modprobe rmem, then start rmemd";
    if (version == RMEM_VERSION) {
      ok("module", "loaded, version " + version);
    } else {
      finding("module", "the loaded one is version " + version + ", rmemctl is " RMEM_VERSION,
              again);
    }
    const auto facts = machine_.module();
    if (!facts.ok()) {
      return finding("interfaces", facts.status().cause(), facts.status().hint());
    }
    if (facts->genl != RMEM_FAMILY_VERSION) {
      finding("interfaces",
              fmt::format("the module's netlink is version {}, rmemctl's {}", facts->genl,
                          RMEM_FAMILY_VERSION),
              again);
    } else if (!facts->uapi_major) {
      skipped("interfaces", fmt::format("netlink {}; the others are for root and group {} to see",
                                        facts->genl, kGroup));
    } else if (*facts->uapi_major != RMEM_UAPI_MAJOR) {
      finding("interfaces",
              fmt::format("the module does not speak version {} of the ioctls", RMEM_UAPI_MAJOR),
              again);
    } else {
      ok("interfaces", fmt::format("netlink {}, ioctls {}", facts->genl, *facts->uapi_major));
    }
  }

  // A kernel that takes only signed modules says "Key was rejected by service", if
  // anything.
  void secure_boot() {
    const auto variable =
        read("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c");
    const bool secure = variable && variable->size() >= 5 && (*variable)[4] == 1;
    const std::string lockdown = first_line("/sys/kernel/security/lockdown");
    const bool enforced = first_line("/sys/module/module/parameters/sig_enforce") == "Y" ||
                          (!lockdown.empty() && lockdown.find("[none]") == std::string::npos);
    const std::string state = std::string("Secure Boot is ") + (secure ? "on" : "off") +
                              (enforced ? ", modules have to be signed" : "");
    if (!enforced || loaded_) return ok("signatures", state);
    if (installed_.empty()) {
      return skipped("signatures", state + "; the module is not installed");
    }
    // The end of a signed module; what is compressed cannot be told.
    static constexpr std::string_view kMark = "~Module signature appended~\n";
    const std::string remedy =
        "mokutil --import /var/lib/dkms/mok.pub, reboot and confirm; then dkms install rmem again";
    if (installed_.ends_with(".ko") && !read(installed_).value_or("").ends_with(kMark)) {
      return finding("signatures", state + ", and " + installed_ + " is not", remedy);
    }
    finding("signatures",
            state + " with a key that the machine knows; whether DKMS's is, " +
                "mokutil --test-key /var/lib/dkms/mok.pub tells",
            remedy);
  }

  void node(const std::string& path, unsigned mode, bool grouped) {
    struct stat st;
    if (!loaded_) return skipped(path, "the module is not loaded");
    if (machine_.stat((machine_.root + path).c_str(), &st) != 0) {
      return finding(path, "missing", "see whether devtmpfs is mounted at /dev");
    }
    if (!S_ISCHR(st.st_mode)) {
      return finding(path, "not a device: somebody wrote there before the module was loaded",
                     "rm " + path + ", then modprobe -r rmem && modprobe rmem");
    }
    const unsigned seen = st.st_mode & 07777;
    if (seen != mode) {
      return finding(path, fmt::format("its mode is {:04o}, not {:04o}", seen, mode),
                     fmt::format("udevadm trigger {}, or chmod {:04o} {}", path, mode, path));
    }
    if (grouped && gid_ && st.st_gid != *gid_) {
      return finding(path, fmt::format("it belongs to group {}, not to {}", st.st_gid, kGroup),
                     fmt::format("udevadm trigger {}, or chgrp {} {}", path, kGroup, path));
    }
    ok(path, fmt::format("{:04o}{}", mode, grouped && gid_ ? ", group rmem" : ""));
  }

  void daemon() {
    const auto facts = machine_.daemon(socket_);
    if (!facts.ok()) {
      if (facts.status().code() == Code::kPermission) {
        return skipped("daemon", facts.status().cause());
      }
      return finding("daemon", facts.status().cause(), facts.status().hint());
    }
    if (facts->version == RMEM_VERSION) {
      ok("daemon", fmt::format("version {}, pid {}", facts->version, facts->pid));
    } else {
      finding("daemon",
              fmt::format("rmemd is version {}, rmemctl is " RMEM_VERSION, facts->version),
              "systemctl restart rmemd: regions stay, programs wait meanwhile");
    }
    limits(facts->pid);
    mount();
  }

  void limits(int pid) {
    const std::string process = fmt::format("/proc/{}", pid);
    const auto locked = value_of(process + "/status", "VmLck:");
    const auto files = value_of(process + "/limits", "Max open files");
    if (!locked || !files) return skipped("limits", "rmemd's cannot be read");
    if (*locked == "0") {
      return finding("limits",
                     "rmemd's memory is not locked: it may wait for a page that has been "
                     "swapped out, and all programs for it",
                     "LimitMEMLOCK=infinity in its unit, or run it as root");
    }
    // A region has up to two connections.
    static constexpr std::uint64_t kFiles = 4096;
    std::uint64_t most = UINT64_MAX;  // "unlimited"
    (void)std::from_chars(files->data(), files->data() + files->size(), most);
    if (most < kFiles) {
      return finding("limits", fmt::format("rmemd may open {} files only", most),
                     fmt::format("LimitNOFILE={} or more in its unit", kFiles));
    }
    ok("limits", fmt::format("{} KiB locked, {} open files", *locked, *files));
  }

  // "ID PARENT MAJOR:MINOR ROOT MOUNT-POINT ... - TYPE SOURCE OPTIONS"
  void mount() {
    const std::string where = control::kRegionDirectory;
    std::istringstream lines(read("/proc/self/mountinfo").value_or(""));
    for (std::string line; std::getline(lines, line);) {
      if (line.find(" " + where + " ") != std::string::npos &&
          line.find(" - rmemfs ") != std::string::npos) {
        return ok("files", "regions are files in " + where);
      }
    }
    finding("files", "rmemfs is not mounted at " + where,
            "systemctl start run-rmem-regions.mount, or mount -t rmemfs rmemfs " + where);
  }

  const Machine& machine_;
  const std::string socket_;
  std::vector<Check> checks_;
  std::string release_;
  std::string installed_;  // the module's file, if it is where installers put it
  bool loaded_ = false;
  std::optional<unsigned> gid_;  // of group rmem
};

const char* verdict_name(Verdict verdict) {
  static constexpr const char* kNames[] = {"ok", "finding", "skipped"};
  return kNames[static_cast<int>(verdict)];
}

Result<ModuleFacts> ask_module() {
  ModuleFacts facts;
  const auto genl = kchan::Netlink::family_version();
  if (!genl.ok()) return genl.status();
  facts.genl = *genl;
  const auto uapi = kchan::uapi_major();
  if (uapi.ok()) {
    facts.uapi_major = *uapi;
  } else if (uapi.status().code() != Code::kPermission) {
    return uapi.status();
  }
  return facts;
}

Result<DaemonFacts> ask_daemon(const std::string& socket) {
  auto daemon = Daemon::connect(socket);
  if (!daemon.ok()) return daemon.status();
  const auto reply = daemon->call({{"verb", "ping"}}, std::chrono::seconds(5));
  if (!reply.ok()) return reply.status();
  return DaemonFacts{reply->value("version", "unknown"), reply->value("pid", 0)};
}

}  // namespace

Machine this_machine() {
  return {.root = {},
          .stat = [](const char* path, struct stat* st) { return ::stat(path, st); },
          .module = &ask_module,
          .daemon = &ask_daemon};
}

std::vector<Check> examine(const Machine& machine, const std::string& socket) {
  return Examination(machine, socket).run();
}

std::string checks_text(const std::vector<Check>& checks) {
  std::size_t width = 0;
  for (const Check& check : checks) width = std::max(width, check.name.size());
  std::string out;
  for (const Check& check : checks) {
    out += fmt::format("{:<7}  {:<{}}  {}\n", verdict_name(check.verdict), check.name, width,
                       check.detail);
    if (!check.remedy.empty()) out += fmt::format("{:9}next: {}\n", "", check.remedy);
  }
  return out;
}

std::string checks_json(const std::vector<Check>& checks) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  std::size_t findings = 0;
  for (const Check& check : checks) {
    findings += check.verdict == Verdict::kFinding;
    list.push_back({{"name", check.name},
                    {"verdict", verdict_name(check.verdict)},
                    {"detail", check.detail},
                    {"remedy", check.remedy}});
  }
  const nlohmann::ordered_json document = {
      {"schema", 1}, {"findings", findings}, {"checks", std::move(list)}};
  return document.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace rmem::ctl
