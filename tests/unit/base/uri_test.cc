// SPDX-License-Identifier: MIT
#include "base/uri.hh"

#include <gtest/gtest.h>

namespace rmem {
namespace {

TEST(Uri, TakesItsPartsApart) {
  const auto uri = Uri::parse("RMEM://server.example:7071/data?a=1&b=x%20y");
  ASSERT_TRUE(uri.ok()) << uri.status().cause();
  EXPECT_EQ(uri->scheme, "rmem");
  EXPECT_EQ(uri->host, "server.example");
  EXPECT_EQ(uri->port, 7071);
  EXPECT_EQ(uri->path, "/data");
  EXPECT_EQ(uri->query.at("a"), "1");
  EXPECT_EQ(uri->query.at("b"), "x y");
}

TEST(Uri, Ipv6AddressesStandInBrackets) {
  const auto uri = Uri::parse("rmem://[::1]:7070/data");
  ASSERT_TRUE(uri.ok());
  EXPECT_EQ(uri->host, "::1");
  EXPECT_EQ(uri->port, 7070);
  EXPECT_EQ(Uri::parse("tcp://[fe80::1%25eth0]")->host, "fe80::1%eth0");
  EXPECT_FALSE(Uri::parse("tcp://[fe80::1]")->port.has_value());
}

TEST(Uri, HostAndPathMayBeEmpty) {
  const auto file = Uri::parse("file:///a/b%25c");
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(file->host, "");
  EXPECT_EQ(file->path, "/a/b%c");
  EXPECT_EQ(Uri::parse("mem://1GiB")->host, "1GiB");
  EXPECT_EQ(Uri::parse("rmem+unix:///x?socket=/run/s.sock")->query.at("socket"), "/run/s.sock");
}

TEST(Uri, RefusesWhatIsMalformed) {
  for (const char* text : {"",
                           "/a/file",
                           "file:/a",
                           "://x",
                           "1x://y",
                           "a b://c",
                           "tcp://h:",
                           "tcp://h:0",
                           "tcp://h:65536",
                           "tcp://h:7x",
                           "tcp://h:1:2",
                           "tcp://::1",
                           "tcp://[::1",
                           "tcp://[::1]x",
                           "tcp://[::1]:",
                           "tcp://[]:1",
                           "file:///a%",
                           "file:///a%2",
                           "file:///a%zz",
                           "file:///a%00b",
                           "file:///a#b",
                           "file:///a?b",
                           "file:///a?=c",
                           "file:///a?b=1&b=2",
                           "file:///a?b=%"})
    EXPECT_FALSE(Uri::parse(text).ok()) << text;
}

TEST(Uri, NamesTheOptionItDoesNotKnow) {
  const auto uri = Uri::parse("file:///a?size=1GiB&colour=red");
  EXPECT_TRUE(uri->expect_keys({"size", "colour"}).ok());
  const Status status = uri->expect_keys({"size"});
  EXPECT_EQ(status.code(), Code::kUsage);
  EXPECT_NE(status.cause().find("colour"), std::string::npos);
}

}  // namespace
}  // namespace rmem
