// SPDX-License-Identifier: MIT
#include "server/audit.hh"

#include <gtest/gtest.h>

#include <algorithm>

namespace rmem::server {
namespace {

using namespace std::chrono_literals;

class AuditTest : public testing::Test {
 protected:
  // The lines that `what` writes.
  template <class What>
  std::string lines(What what) {
    testing::internal::CaptureStderr();
    what();
    return testing::internal::GetCapturedStderr();
  }
  static std::ptrdiff_t count(const std::string& text) {
    return std::count(text.begin(), text.end(), '\n');
  }
  Audit audit{"access"};
  Audit::Clock::time_point now = Audit::Clock::time_point{} + 1h;
};

TEST_F(AuditTest, SaysWhoAndWhat) {
  const std::string said =
      lines([&] { audit.refused("192.0.2.1", "192.0.2.1:7", "`e' to cn:alice", now); });
  EXPECT_NE(said.find("access: 192.0.2.1:7: refused: `e' to cn:alice\n"), std::string::npos)
      << said;
}

TEST_F(AuditTest, TheSameIsSaidOnceAndAgainLaterWithWhatWasLeftOut) {
  const auto once = [&] {
    audit.refused("h", "h:1", "that", now);
    audit.refused("h", "h:2", "that", now + 1min);
  };
  EXPECT_EQ(count(lines(once)), 1);
  EXPECT_EQ(audit.left_out(), 1u);
  EXPECT_EQ(count(lines([&] { audit.refused("other", "other:1", "that", now); })), 1);
  now += Audit::kAgain;
  audit.refused("h", "h:3", "that", now - 1s);
  const std::string again = lines([&] { audit.refused("h", "h:4", "that", now); });
  EXPECT_NE(again.find("1 refusals before were not logged"), std::string::npos) << again;
}

TEST_F(AuditTest, AFloodDoesNotFillTheLog) {
  const auto flood = [&] {
    for (int i = 0; i < 10'000; ++i) audit.refused(std::to_string(i), "peer", "that", now);
  };
  EXPECT_EQ(count(lines(flood)), static_cast<std::ptrdiff_t>(Audit::kRemembered) + 1);
  now += Audit::kAgain;
  EXPECT_EQ(count(lines([&] { audit.refused("h", "h:1", "that", now); })), 1);
}

}  // namespace
}  // namespace rmem::server
