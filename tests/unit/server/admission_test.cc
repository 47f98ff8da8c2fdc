// SPDX-License-Identifier: MIT
#include "server/admission.hh"

#include <gtest/gtest.h>

namespace rmem::server {
namespace {

TEST(Admission, OfAllHostsTogether) {
  Admission admission({.connections = 2});
  EXPECT_EQ(admission.enter("a"), "");
  EXPECT_EQ(admission.enter("b"), "");
  EXPECT_EQ(admission.enter("c"), "too many connections");
  admission.leave("a", false);
  EXPECT_EQ(admission.enter("c"), "");
}

TEST(Admission, OfOneHost) {
  Admission admission({.per_host = 2});
  EXPECT_EQ(admission.enter("a"), "");
  EXPECT_EQ(admission.enter("a"), "");
  admission.opened("a");
  EXPECT_EQ(admission.enter("a"), "too many connections of one address");
  EXPECT_EQ(admission.enter("b"), "");
  admission.leave("a", true);
  EXPECT_EQ(admission.enter("a"), "");
}

TEST(Admission, OfOneHostThatOpenNothing) {
  Admission admission({.unopened_per_host = 1});
  EXPECT_EQ(admission.enter("a"), "");
  EXPECT_NE(admission.enter("a"), "");
  admission.opened("a");
  EXPECT_EQ(admission.enter("a"), "");
  EXPECT_NE(admission.enter("a"), "");
  admission.leave("a", false);
  EXPECT_EQ(admission.enter("a"), "");
}

TEST(Admission, LowerLimitsSendNobodyAway) {
  Admission admission({});
  for (int i = 0; i < 3; ++i) EXPECT_EQ(admission.enter("a"), "");
  admission.set_limits({.connections = 2});
  EXPECT_NE(admission.enter("a"), "");
  admission.leave("a", false);
  EXPECT_NE(admission.enter("a"), "");
  admission.leave("a", false);
  EXPECT_EQ(admission.enter("a"), "");
}

}  // namespace
}  // namespace rmem::server
