// SPDX-License-Identifier: MIT
// What may be wrong with a machine that wants to map remote memory, and what to
// do about it. Looks only; changes nothing.
#pragma once

#include <sys/stat.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hh"

namespace rmem::ctl {

// What the daemon says of itself.
struct DaemonFacts {
  std::string version;
  int pid = 0;
};

// Which interfaces the loaded module speaks.
struct ModuleFacts {
  unsigned genl = 0;
  // Absent where the caller may not open the control device.
  std::optional<unsigned> uapi_major;
};

// Where doctor looks; the tests put their own in.
struct Machine {
  std::string root;  // in front of every path
  std::function<int(const char* path, struct stat* st)> stat;
  std::function<Result<ModuleFacts>()> module;
  std::function<Result<DaemonFacts>(const std::string& socket)> daemon;
};
Machine this_machine();

enum class Verdict { kOk, kFinding, kSkipped };

struct Check {
  std::string name;
  Verdict verdict = Verdict::kOk;
  std::string detail;
  std::string remedy;  // of a finding
};

// Every check, in the order in which a person would go about it.
std::vector<Check> examine(const Machine& machine, const std::string& socket);

// Of them, those about TLS: the kernel's module, GnuTLS, and the files that /etc/rmem/*.toml name.
std::vector<Check> examine_tls(const Machine& machine);

// A line a check, and the next step below each finding.
std::string checks_text(const std::vector<Check>& checks);
// {"schema":1,"findings":N,"checks":[{"name","verdict","detail","remedy"}]}, one line.
std::string checks_json(const std::vector<Check>& checks);

}  // namespace rmem::ctl
