// SPDX-License-Identifier: MIT
#include "base/log.hh"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

namespace rmem {
namespace {

// In a child whose stderr is the death test's pipe, as journald's would be.
[[noreturn]] void say(bool journal) {
  struct stat st = {};
  ::fstat(STDERR_FILENO, &st);
  const std::string stream =
      std::to_string(st.st_dev) + ":" + std::to_string(st.st_ino + (journal ? 0 : 1));
  ::setenv("JOURNAL_STREAM", stream.c_str(), 1);
  log::Source("part", "subject").warning("text {}", 7);
  ::_exit(0);
}

TEST(Log, JournalGetsThePriority) {
  EXPECT_EXIT(say(true), testing::ExitedWithCode(0), "^<4>part subject: text 7\n$");
}

// JOURNAL_STREAM is inherited; what stderr is now may be another thing.
TEST(Log, OthersGetTheTextOnly) {
  EXPECT_EXIT(say(false), testing::ExitedWithCode(0), "^part subject: text 7\n$");
}

}  // namespace
}  // namespace rmem
