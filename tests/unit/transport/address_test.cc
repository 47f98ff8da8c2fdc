// SPDX-License-Identifier: MIT
#include "transport/address.hh"

#include <gtest/gtest.h>

namespace rmem::transport {
namespace {

TEST(Address, OfTheCommandLine) {
  EXPECT_EQ(*Address::parse("tcp://127.0.0.1:7171"),
            (Address{.host = "127.0.0.1", .port = 7171, .path = ""}));
  EXPECT_EQ(*Address::parse("tcp://[::1]"), (Address{.host = "::1", .port = 7070, .path = ""}));
  EXPECT_EQ(*Address::parse("unix:///run/x"),
            (Address{.host = "", .port = 7070, .path = "/run/x"}));
}

TEST(Address, SurvivesItsText) {
  for (const char* text : {"tcp://127.0.0.1:7070", "tcp://[::1]:7171", "tls://h:7070",
                           "quic://h:7070", "unix:///run/x"})
    EXPECT_EQ(Address::parse(text)->to_string(), text);
}

TEST(Address, EverythingElseIsAUsageError) {
  for (const char* text :
       {"", "127.0.0.1:7070", "tcp://", "tcp://:7070", "tcp://h/path", "tcp://h:99999", "unix://",
        "unix:///", "unix://host/path", "udp://h:1", "tcp://h:1?x=y"}) {
    const auto address = Address::parse(text);
    ASSERT_FALSE(address.ok()) << text;
    EXPECT_EQ(address.status().code(), Code::kUsage) << text;
  }
}

TEST(SocketAddress, KnowsWhatStaysOnThisHost) {
  const auto local = [](const char* host) {
    return resolve(host, 1, false, true)->front().local();
  };
  EXPECT_TRUE(local("127.0.0.1"));
  EXPECT_TRUE(local("127.8.9.10"));
  EXPECT_TRUE(local("::1"));
  EXPECT_TRUE(local("::ffff:127.0.0.1"));
  EXPECT_FALSE(local("0.0.0.0"));
  EXPECT_FALSE(local("::"));
  EXPECT_FALSE(local("192.0.2.1"));
  EXPECT_FALSE(local("::ffff:192.0.2.1"));
  EXPECT_FALSE(local("2001:db8::1"));
  EXPECT_TRUE(unix_address("/run/x")->local());
}

TEST(SocketAddress, TooLongAPathIsAUsageError) {
  EXPECT_EQ(unix_address("/" + std::string(200, 'x')).status().code(), Code::kUsage);
}

TEST(Resolve, NumericOnlyDoesNotAskAnybody) {
  EXPECT_EQ(resolve("host.example", 1, false, true).status().code(), Code::kNotFound);
}

TEST(HostOf, AHostIsAnAddressOrANetwork) {
  EXPECT_EQ(host_of("192.0.2.1:4711"), "192.0.2.1");
  EXPECT_EQ(host_of("[2001:db8:1:2:3:4:5:6]:4711"), "2001:db8:1:2::/64");
  EXPECT_EQ(host_of("[2001:db8:1:2:ffff::1]:7"), "2001:db8:1:2::/64");
  EXPECT_EQ(host_of("[fe80::1%eth0]:7"), "fe80::/64");
  EXPECT_EQ(host_of("[::ffff:192.0.2.1]:4711"), "192.0.2.1");
  EXPECT_EQ(host_of("unix socket"), "unix socket");
  EXPECT_EQ(host_of(""), "");
}

}  // namespace
}  // namespace rmem::transport
