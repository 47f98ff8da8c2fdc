// SPDX-License-Identifier: MIT
// What the fuzzers have found worth keeping, again.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "base/log.hh"
#include "fuzz/fuzz.hh"

namespace rmem::fuzz {
namespace {

std::map<std::string, Target>& targets() {
  static std::map<std::string, Target> all;
  return all;
}

class Corpus : public testing::TestWithParam<std::string> {};

TEST_P(Corpus, StaysHarmless) {
  log::set_level(log::Level::kNone);
  const Target target = targets().at(GetParam());
  target({});
  std::size_t files = 0;
  const std::filesystem::path directory = RMEM_FUZZ_CORPUS;
  for (const auto& entry : std::filesystem::directory_iterator(directory / GetParam())) {
    std::ifstream file(entry.path(), std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    // If it ends the program, this is the last line.
    if (!HasFailure()) std::fprintf(stderr, "%s\n", entry.path().filename().c_str());
    target(std::as_bytes(std::span(bytes)));
    ++files;
  }
  EXPECT_GT(files, 0u) << "no corpus";
}

std::vector<std::string> names() {
  std::vector<std::string> all;
  for (const auto& [name, target] : targets()) all.push_back(name);
  return all;
}

}  // namespace

Registered::Registered(const char* name, Target target) { targets()[name] = target; }

}  // namespace rmem::fuzz

// After the targets have registered, hence not by INSTANTIATE_TEST_SUITE_P alone: its
// generator runs in main().
namespace rmem::fuzz {
INSTANTIATE_TEST_SUITE_P(Fuzz, Corpus, testing::ValuesIn(names()),
                         [](const auto& info) { return info.param; });
}
