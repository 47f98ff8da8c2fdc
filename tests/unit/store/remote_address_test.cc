// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "store/remote.hh"

namespace rmem::store {
namespace {

TEST(RemoteAddress, Tcp) {
  const auto address = RemoteAddress::parse("rmem://server.example:7171/data");
  ASSERT_TRUE(address.ok());
  EXPECT_EQ(address->host, "server.example");
  EXPECT_EQ(address->port, 7171);
  EXPECT_EQ(address->export_name, "data");
  EXPECT_EQ(RemoteAddress::parse("rmem://h/data")->port, 7070);
  EXPECT_EQ(RemoteAddress::parse("rmem://[::1]:7070/data")->host, "::1");
}

TEST(RemoteAddress, UnixSocket) {
  const auto address = RemoteAddress::parse("rmem+unix:///data?socket=/run/rmem-server.sock");
  ASSERT_TRUE(address.ok());
  EXPECT_EQ(address->socket_path, "/run/rmem-server.sock");
  EXPECT_EQ(address->export_name, "data");
}

TEST(RemoteAddress, SurvivesItsText) {
  for (const char* text :
       {"rmem://h:7070/data", "rmem://[::1]:7171/data", "rmem+unix:///data?socket=/a%20b%25/s",
        "rmem://a%2fb:7070/data", "rmem://%5bx:7070/data", "rmem://[a:%5d]:7070/a/b"})
    EXPECT_EQ(RemoteAddress::parse(text)->to_string(), text);
}

TEST(RemoteAddress, EverythingElseIsAUsageError) {
  for (const char* text : {"", "data", "rmem://", "rmem://h", "rmem://h/", "rmem:///data",
                           "rmem://h:0/data", "rmem://h/data?x=y", "rmem+unix:///data",
                           "rmem+unix:///data?socket=", "rmem+unix:///data?socket=relative",
                           "rmem+unix://h/data?socket=/s", "rmems://h/data", "file:///data"}) {
    const auto address = RemoteAddress::parse(text);
    ASSERT_FALSE(address.ok()) << text;
    EXPECT_EQ(address.status().code(), Code::kUsage) << text;
    EXPECT_FALSE(address.status().hint().empty());
  }
}

}  // namespace
}  // namespace rmem::store
