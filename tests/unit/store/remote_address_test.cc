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

TEST(RemoteAddress, Tls) {
  const auto address = RemoteAddress::parse("rmems://h/data?tls-certificates=/etc/x");
  ASSERT_TRUE(address.ok());
  EXPECT_EQ(address->kind, transport::Address::Kind::kTls);
  EXPECT_EQ(address->port, 7070);
  EXPECT_EQ(address->tls_files.certificates, "/etc/x");
  const auto key = RemoteAddress::parse("rmems://h/data?tls-psk-file=/k&tls-username=alice");
  ASSERT_TRUE(key.ok());
  EXPECT_EQ(key->tls_files.psk, "/k");
  EXPECT_EQ(key->tls_files.username, "alice");
  EXPECT_FALSE(RemoteAddress::parse("rmem://h/data")->secure());
}

TEST(RemoteAddress, Quic) {
  const auto address = RemoteAddress::parse("rmem+quic://h/data?tls-certificates=/etc/x");
  ASSERT_TRUE(address.ok());
  EXPECT_EQ(address->kind, transport::Address::Kind::kQuic);
  EXPECT_TRUE(address->secure());
  EXPECT_EQ(address->tls_files.certificates, "/etc/x");
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
        "rmems://h:7070/data", "rmem+quic://h:7070/data?tls-psk-file=/k",
        "rmems://h:7070/data?tls-certificates=/a%26b&tls-hostname=other.example",
        "rmem://a%2fb:7070/data", "rmem://%5bx:7070/data", "rmem://[a:%5d]:7070/a/b"})
    EXPECT_EQ(RemoteAddress::parse(text)->to_string(), text);
}

TEST(RemoteAddress, EverythingElseIsAUsageError) {
  for (const char* text : {"",
                           "data",
                           "rmem://",
                           "rmem://h",
                           "rmem://h/",
                           "rmem:///data",
                           "rmem://h:0/data",
                           "rmem://h/data?x=y",
                           "rmem+unix:///data",
                           "rmem+unix:///data?socket=",
                           "rmem+unix:///data?socket=relative",
                           "rmem+unix://h/data?socket=/s",
                           "rmemss://h/data",
                           "file:///data",
                           "rmem://h/data?tls-hostname=x",
                           "rmems://h/data?tls-verify-peer=off",
                           "rmems://h/data?tls-certificates=relative",
                           "rmems:///data",
                           "rmems://h/data?tls-certificates=",
                           "rmems://h/data?tls-certificates=/c&tls-psk-file=/k"}) {
    const auto address = RemoteAddress::parse(text);
    ASSERT_FALSE(address.ok()) << text;
    EXPECT_EQ(address.status().code(), Code::kUsage) << text;
    EXPECT_FALSE(address.status().hint().empty());
  }
}

}  // namespace
}  // namespace rmem::store
