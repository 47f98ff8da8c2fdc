// SPDX-License-Identifier: MIT
// In a file of its own: a simulation, in which several machines live and die within
// one process, has another one.
#include <fstream>
#include <string>

#include "store/local_fs.hh"

namespace rmem::store {
namespace {

std::uint64_t boot_and_process() {
  static const std::uint64_t value = [] {
    std::string boot;
    std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
    return hash(boot, random_u64());
  }();
  return value;
}

}  // namespace

std::uint64_t local_epoch(std::uint64_t losses) {
  const std::uint64_t epoch = hash(std::to_string(losses), boot_and_process());
  return epoch != 0 ? epoch : 1;
}

}  // namespace rmem::store
