// SPDX-License-Identifier: MIT
// rmemctl doctor: each finding, on a machine made of files.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "command.hh"
#include "kchan/errors.hh"
#include "linux/rmem.h"
#include "linux/rmem_netlink.h"
#include "support/certificates.hh"
#include "support/temp_dir.hh"

namespace rmem::ctl {
namespace {

using nlohmann::json;

constexpr const char* kSecureBoot =
    "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
constexpr const char* kModule = "/lib/modules/6.12.9-amd64/updates/dkms/rmem.ko";

class Doctor : public testing::Test {
 protected:
  // A machine on which everything is well.
  void SetUp() override {
    write("/proc/sys/kernel/osrelease", "6.12.9-amd64\n");
    write("/etc/group", "root:x:0:\nrmemx:x:7:\nrmem:x:970:somebody\n");
    write("/sys/module/rmem/version", RMEM_VERSION "\n");
    write("/sys/module/module/parameters/sig_enforce", "N\n");
    write("/sys/kernel/security/lockdown", "[none] integrity confidentiality\n");
    write("/lib/modules/6.12.9-amd64/build/include/x", "");
    write(kModule, "code");
    write("/sys/module/tls/refcnt", "0\n");
    write("/proc/4711/status", "Name:\trmemd\nVmLck:\t    8192 kB\n");
    write("/proc/4711/limits", "Max open files            524288               524288  files\n");
    write("/proc/self/mountinfo",
          "22 1 0:20 / / rw - ext4 /dev/vda rw\n"
          "30 22 0:41 / /run/rmem/regions rw,nosuid - rmemfs rmemfs rw\n");
    nodes["/dev/rmem"] = node(S_IFCHR | 0666, 0);
    nodes["/dev/rmem_control"] = node(S_IFCHR | 0660, 970);
    module = ModuleFacts{.genl = RMEM_FAMILY_VERSION, .uapi_major = RMEM_UAPI_MAJOR};
    daemon = DaemonFacts{.version = RMEM_VERSION, .pid = 4711};
  }

  static struct stat node(unsigned mode, unsigned gid) {
    struct stat st = {};
    st.st_mode = mode;
    st.st_gid = gid;
    return st;
  }
  void write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_ + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << text;
  }
  void remove(const std::string& path) { std::filesystem::remove_all(root_ + path); }

  int run(bool as_json = true) {
    Context context;
    context.machine.root = root_;
    context.machine.stat = [this](const char* path, struct stat* st) {
      const std::string inside = std::string(path).substr(root_.size());
      if (!inside.starts_with("/dev/")) return ::stat(path, st);
      if (!nodes.contains(inside)) return -1;
      *st = nodes[inside];
      return 0;
    };
    context.machine.module = [this] { return module; };
    context.machine.daemon = [this](const std::string&) { return daemon; };
    std::ostringstream out;
    context.out = &out;
    const char* argv[] = {"rmemctl", "doctor", "--json"};
    const int code = ctl::run(as_json ? 3 : 2, argv, context);
    text = out.str();
    if (as_json) answer = json::parse(text);
    return code;
  }
  // The one finding, on an otherwise healthy machine, with its remedy.
  void expect_finding(const std::string& name, const std::string& detail,
                      const std::string& remedy) {
    EXPECT_EQ(run(), 1);
    EXPECT_EQ(answer["findings"], 1) << text;
    for (const json& check : answer["checks"]) {
      EXPECT_EQ(check["verdict"] == "finding", check["name"] == name) << check;
      if (check["name"] != name) continue;
      EXPECT_NE(check["detail"].get<std::string>().find(detail), std::string::npos) << check;
      EXPECT_NE(check["remedy"].get<std::string>().find(remedy), std::string::npos) << check;
    }
  }
  // rmem-server has certificates that are good for so many days, authority and its own.
  void give_certificates(int days, int own_days) {
    const std::string tls = root_ + "/etc/rmem/tls";
    std::filesystem::create_directories(tls);
    authority = std::make_unique<test::CertificateAuthority>("authority", days * 86400 + 3600);
    authority->trust(tls);
    authority->issue(tls, "server", {.ends = own_days * 86400 + 3600});
    write("/etc/rmem/rmem-server.toml",
          "state-dir = \"/somewhere\"\n[tls]\ncertificates = \"/etc/rmem/tls\"\n");
  }
  std::string verdict(const std::string& name) {
    for (const json& check : answer["checks"]) {
      if (check["name"] == name) return check["verdict"];
    }
    return "absent";
  }

  test::TempDir dir;
  std::string root_ = dir / "root";
  std::map<std::string, struct stat> nodes;
  Result<ModuleFacts> module = ModuleFacts{};
  Result<DaemonFacts> daemon = DaemonFacts{};
  std::unique_ptr<test::CertificateAuthority> authority;
  std::string text;
  json answer;
};

TEST_F(Doctor, FindsNothingWhereAllIsWell) {
  EXPECT_EQ(run(), 0) << text;
  EXPECT_EQ(answer["schema"], 1);
  EXPECT_EQ(answer["findings"], 0);
  EXPECT_EQ(answer["checks"].size(), 14u);
  for (const json& check : answer["checks"]) {
    EXPECT_EQ(check["verdict"], "ok") << check;
    EXPECT_EQ(check["remedy"], "") << check;
  }
  EXPECT_EQ(run(false), 0);
  EXPECT_NE(text.find("ok       kernel"), std::string::npos) << text;
}

TEST_F(Doctor, TellsTheNextStepBelowAFinding) {
  daemon = Status(Code::kUnreachable, "no rmemd answers", "start it");
  EXPECT_EQ(run(false), 1);
  EXPECT_NE(text.find("finding  daemon             no rmemd answers\n         next: start it\n"),
            std::string::npos)
      << text;
}

TEST_F(Doctor, KernelOfAnotherSeries) {
  write("/proc/sys/kernel/osrelease", "6.10.1-amd64\n");
  write("/lib/modules/6.10.1-amd64/build/include/x", "");
  expect_finding("kernel", "6.10.1-amd64", "6.12");
  // Not to be taken for 6.1.
  write("/proc/sys/kernel/osrelease", "6.1.9-amd64\n");
  write("/lib/modules/6.1.9-amd64/build/include/x", "");
  EXPECT_EQ(run(), 0) << text;
}

TEST_F(Doctor, ModuleThatIsNotLoaded) {
  remove("/sys/module/rmem");
  expect_finding("module", kModule, "modprobe rmem");
  EXPECT_EQ(verdict("/dev/rmem"), "skipped");
  EXPECT_EQ(verdict("interfaces"), "absent");
  remove("/lib/modules/6.12.9-amd64/updates");
  expect_finding("module", "not installed", "rmem-dkms");
}

TEST_F(Doctor, HeadersMatterUntilTheModuleIsBuilt) {
  remove("/lib/modules/6.12.9-amd64/build");
  EXPECT_EQ(run(), 0);
  EXPECT_EQ(verdict("headers"), "skipped");
  remove("/sys/module/rmem");
  remove("/lib/modules/6.12.9-amd64/updates");
  EXPECT_EQ(run(), 1);
  EXPECT_EQ(verdict("headers"), "finding");
  EXPECT_NE(text.find("apt install linux-headers-6.12.9-amd64"), std::string::npos) << text;
}

TEST_F(Doctor, ModuleOfAnotherVersion) {
  write("/sys/module/rmem/version", "0.0.9\n");
  expect_finding("module", "0.0.9", "modprobe -r rmem");
}

TEST_F(Doctor, ModuleOfOtherInterfaces) {
  module = ModuleFacts{.genl = RMEM_FAMILY_VERSION + 1, .uapi_major = RMEM_UAPI_MAJOR};
  expect_finding("interfaces", "netlink is version", "modprobe -r rmem");
  module = ModuleFacts{.genl = RMEM_FAMILY_VERSION, .uapi_major = 0};
  expect_finding("interfaces", "ioctls", "modprobe -r rmem");
  module = ModuleFacts{.genl = RMEM_FAMILY_VERSION, .uapi_major = std::nullopt};
  EXPECT_EQ(run(), 0);  // a user like any other
  EXPECT_EQ(verdict("interfaces"), "skipped");
  module = kchan::module_absent("no family");
  expect_finding("interfaces", "no family", "modprobe rmem");
}

TEST_F(Doctor, NodesThatAreNotWhatTheyShouldBe) {
  nodes["/dev/rmem"] = node(S_IFCHR | 0600, 0);
  expect_finding("/dev/rmem", "0600", "chmod 0666 /dev/rmem");
  nodes["/dev/rmem"] = node(S_IFREG | 0666, 0);
  expect_finding("/dev/rmem", "not a device", "rm /dev/rmem");
  nodes.erase("/dev/rmem");
  expect_finding("/dev/rmem", "missing", "devtmpfs");
  nodes["/dev/rmem"] = node(S_IFCHR | 0666, 0);
  nodes["/dev/rmem_control"] = node(S_IFCHR | 0666, 970);
  expect_finding("/dev/rmem_control", "0666", "chmod 0660");
  nodes["/dev/rmem_control"] = node(S_IFCHR | 0660, 0);
  expect_finding("/dev/rmem_control", "group 0", "chgrp rmem");
}

TEST_F(Doctor, NoGroup) {
  write("/etc/group", "root:x:0:\nrmemx:x:7:\n");
  expect_finding("group", "no group rmem", "systemd-sysusers");
}

TEST_F(Doctor, SignaturesMatterUntilTheModuleIsLoaded) {
  write(kSecureBoot, std::string("\6\0\0\0\1", 5));
  write("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
  EXPECT_EQ(run(), 0);
  EXPECT_NE(text.find("Secure Boot is on, modules have to be signed"), std::string::npos) << text;

  remove("/sys/module/rmem");
  EXPECT_EQ(run(), 1);
  EXPECT_EQ(verdict("signatures"), "finding");
  EXPECT_NE(text.find("rmem.ko is not"), std::string::npos) << text;
  write(kModule, "code~Module signature appended~\n");
  EXPECT_EQ(run(), 1);
  EXPECT_EQ(verdict("signatures"), "finding");
  EXPECT_NE(text.find("mokutil --test-key"), std::string::npos) << text;
  // Enforced without Secure Boot, too.
  remove(kSecureBoot);
  write("/sys/kernel/security/lockdown", "[none] integrity confidentiality\n");
  write("/sys/module/module/parameters/sig_enforce", "Y\n");
  EXPECT_EQ(run(), 1);
  EXPECT_EQ(verdict("signatures"), "finding");
  // Secure Boot alone refuses nothing.
  write(kSecureBoot, std::string("\6\0\0\0\1", 5));
  write("/sys/module/module/parameters/sig_enforce", "N\n");
  EXPECT_EQ(run(), 1);
  EXPECT_EQ(verdict("signatures"), "ok");
}

TEST_F(Doctor, DaemonAbsentForbiddenOrOfAnotherVersion) {
  daemon = Status(Code::kUnreachable, "no rmemd answers at /x", "start it");
  expect_finding("daemon", "/x", "start it");
  EXPECT_EQ(verdict("limits"), "absent");
  daemon = Status(Code::kPermission, "/x: Permission denied", "be root");
  EXPECT_EQ(run(), 0);
  EXPECT_EQ(verdict("daemon"), "skipped");
  daemon = DaemonFacts{.version = "0.0.9", .pid = 4711};
  expect_finding("daemon", "0.0.9", "restart rmemd");
}

TEST_F(Doctor, DaemonWithoutTheLimitsItNeeds) {
  write("/proc/4711/status", "Name:\trmemd\nVmLck:\t       0 kB\n");
  expect_finding("limits", "not locked", "LimitMEMLOCK=infinity");
  write("/proc/4711/status", "Name:\trmemd\nVmLck:\t    8192 kB\n");
  write("/proc/4711/limits", "Max open files            1024                 1024       files\n");
  expect_finding("limits", "1024 files", "LimitNOFILE=");
  write("/proc/4711/limits", "Max open files            unlimited            unlimited  files\n");
  EXPECT_EQ(run(), 0) << text;
  remove("/proc/4711");
  EXPECT_EQ(run(), 0) << text;
  EXPECT_EQ(verdict("limits"), "skipped");
}

TEST_F(Doctor, RegionsThatAreNoFiles) {
  write("/proc/self/mountinfo",
        "30 22 0:41 / /run/rmem/regions rw - tmpfs tmpfs rw\n"
        "31 22 0:42 / /mnt rw - rmemfs rmemfs rw\n");
  expect_finding("files", "not mounted", "run-rmem-regions.mount");
}

TEST_F(Doctor, KernelWithoutTlsMattersWhereItIsWanted) {
  remove("/sys/module/tls");
  write("/etc/rmem/rmemd.toml", "instance = \"x\"\n");
  EXPECT_EQ(run(), 0) << text;
  EXPECT_EQ(verdict("ktls"), "skipped");
  EXPECT_EQ(verdict("tls rmemd"), "absent");
  give_certificates(100, 100);
  expect_finding("ktls", "no module tls", "CONFIG_TLS");
  write("/lib/modules/6.12.9-amd64/kernel/net/tls/tls.ko.xz", "code");
  expect_finding("ktls", "not loaded", "modprobe tls");
  write("/lib/modules/6.12.9-amd64/modules.builtin", "kernel/net/tls/tls.ko\n");
  EXPECT_EQ(run(), 0) << text;
  EXPECT_EQ(verdict("ktls"), "ok");
  remove("/lib/modules/6.12.9-amd64/modules.builtin");
  write("/etc/rmem/rmem-server.toml",
        "[tls]\ncertificates = \"/etc/rmem/tls\"\nkernel = \"off\"\n");
  EXPECT_EQ(run(), 0) << text;
  EXPECT_EQ(verdict("ktls"), "skipped");
}

TEST_F(Doctor, CertificatesThatExpire) {
  give_certificates(100, 50);
  EXPECT_EQ(run(), 0) << text;
  EXPECT_EQ(verdict("tls rmem-server"), "ok");
  give_certificates(100, 13);
  expect_finding("tls rmem-server", "/etc/rmem/tls/server-cert.pem expires in 13 days", "anew");
  give_certificates(3, 50);
  expect_finding("tls rmem-server", "/etc/rmem/tls/ca-cert.pem expires in 3 days", "anew");
  give_certificates(100, -2);
  expect_finding("tls rmem-server", "server-cert.pem has expired on", "anew");
  give_certificates(100, 50);
  authority->revoke(root_ + "/etc/rmem/tls", 77, 86400);
  expect_finding("tls rmem-server", "/etc/rmem/tls/ca-crl.pem expires in", "anew");
}

TEST_F(Doctor, TlsFilesThatCannotBeUsed) {
  give_certificates(100, 100);
  const std::string key = root_ + "/etc/rmem/tls/server-key.pem";
  ::chmod(key.c_str(), 0644);
  expect_finding("tls rmem-server", "/etc/rmem/tls/server-key.pem: a secret that others",
                 "chmod 0600 /etc/rmem/tls/server-key.pem");
  remove("/etc/rmem/tls/server-key.pem");
  expect_finding("tls rmem-server", "/etc/rmem/tls/server-key.pem: No such file", "rmem-security");
  remove("/etc/rmem/tls");
  expect_finding("tls rmem-server", "/etc/rmem/tls/ca-cert.pem: No such file", "rmem-security");
  write("/etc/rmem/rmem-server.toml", "[tls]\ncertificate = \"/x\"\n");
  expect_finding("tls rmem-server", "/etc/rmem/rmem-server.toml:2:1", "rmem-server --check-config");
  remove("/etc/rmem/rmem-server.toml");
  write("/etc/rmem/rmemd.toml", "[tls]\npsk-file = \"/etc/rmem/keys\"\n");
  test::write_secret(root_ + "/etc/rmem/keys", "alice:00112233445566778899aabbccddeeff\n");
  EXPECT_EQ(run(), 0) << text;
  EXPECT_EQ(verdict("tls rmemd"), "ok");
  write("/etc/rmem/keys", "alice\n");
  expect_finding("tls rmemd", "/etc/rmem/keys:1: not of the form", "psktool");
}

}  // namespace
}  // namespace rmem::ctl
