// SPDX-License-Identifier: MIT
#include <iostream>

#include "command.hh"

int main(int argc, char** argv) {
  rmem::ctl::Context context;
  context.out = &std::cout;
  return rmem::ctl::run(argc, argv, context);
}
