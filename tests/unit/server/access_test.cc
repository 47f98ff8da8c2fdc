// SPDX-License-Identifier: MIT
#include "server/access.hh"

#include <gtest/gtest.h>

namespace rmem::server {
namespace {

const std::vector<std::string> kNobody;
const std::vector<std::string> kAlice = {"cn:alice", "email:alice@example"};

TEST(Access, WhoIsNotListedGetsNothing) {
  EXPECT_EQ(allowed({}, {kNobody}), Access::kNone);
  EXPECT_EQ(allowed({}, {kAlice}), Access::kNone);
  EXPECT_EQ(allowed({{"cn:bob", Access::kWrite}}, {kAlice}), Access::kNone);
}

TEST(Access, IdentitiesAreComparedAsTheyAre) {
  for (const char* other : {"alice", "cn:Alice", "cn:alic", "cn:alice ", "psk:alice"})
    EXPECT_EQ(allowed({{other, Access::kWrite}}, {kAlice}), Access::kNone) << other;
}

TEST(Access, TheMostThatAnyIdentityMay) {
  EXPECT_EQ(allowed({{"cn:alice", Access::kRead}}, {kAlice}), Access::kRead);
  EXPECT_EQ(
      allowed({{"cn:alice", Access::kRead}, {"email:alice@example", Access::kWrite}}, {kAlice}),
      Access::kWrite);
}

TEST(Access, WithoutAListThisHostAndPlainConnectionsOnly) {
  EXPECT_EQ(allowed(usual_list(false), {kNobody}), Access::kWrite);
  EXPECT_EQ(allowed(usual_list(false), {kAlice}), Access::kNone);
  EXPECT_EQ(allowed(usual_list(false), {kAlice, true}), Access::kWrite);
  EXPECT_EQ(allowed(usual_list(true), {kAlice}), Access::kWrite);
}

TEST(Access, WordsStandForAllOfAKind) {
  const AllowList list = {{"anonymous", Access::kRead}, {"authenticated", Access::kWrite}};
  EXPECT_EQ(allowed(list, {kNobody}), Access::kRead);
  EXPECT_EQ(allowed(list, {kAlice}), Access::kWrite);
  // Nobody can call himself so: what is proved has a kind in front.
  const std::vector<std::string> joker = {"cn:anonymous"};
  EXPECT_EQ(allowed({{"anonymous", Access::kWrite}}, {joker}), Access::kNone);
  EXPECT_EQ(allowed({{"local", Access::kWrite}}, {kAlice}), Access::kNone);
  EXPECT_EQ(allowed({{"local", Access::kRead}}, {kAlice, true}), Access::kRead);
  EXPECT_EQ(allowed({{"local", Access::kRead}}, {kNobody, true}), Access::kRead);
}

TEST(Access, IdentitiesHaveAKnownKind) {
  for (const char* good : {"cn:a", "dn:CN=a,O=b", "dns:h.example", "email:a@b", "uri:x:y", "psk:a",
                           "anonymous", "authenticated", "local"})
    EXPECT_TRUE(check_identity(good).ok()) << good;
  for (const char* bad : {"", "alice", "cn:", ":a", "CN:a", "user:a", "Anonymous"})
    EXPECT_FALSE(check_identity(bad).ok()) << bad;
}

TEST(Access, DescriptionsAreShort) {
  EXPECT_EQ(describe(kNobody), "nobody authenticated");
  EXPECT_EQ(describe(kAlice), "cn:alice, email:alice@example");
  EXPECT_LT(describe(std::vector<std::string>(100, "dns:host.example")).size(), 310u);
}

}  // namespace
}  // namespace rmem::server
