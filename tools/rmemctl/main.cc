// SPDX-License-Identifier: MIT
#include <iostream>

#include "command.hh"

namespace rmem::ctl {
namespace {

int program(int argc, char** argv) {
  Context context;
  context.out = &std::cout;
  return run(argc, argv, context);
}

}  // namespace
}  // namespace rmem::ctl

int main(int argc, char** argv) {
  return rmem::cli::guard("rmemctl", rmem::ctl::program, argc, argv);
}
