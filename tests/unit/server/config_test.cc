// SPDX-License-Identifier: MIT
#include "server/config.hh"

#include <gtest/gtest.h>

namespace rmem::server {
namespace {

using namespace std::chrono_literals;

std::string mistake(std::string_view document) {
  Config config;
  const Status status = config::parse(document, "f", keys(config));
  EXPECT_EQ(status.code(), Code::kUsage) << document;
  return status.cause();
}

TEST(ServerConfig, EveryKey) {
  Config config;
  const Status status = config::parse(R"(
listen = ["tcp://127.0.0.1:7071", "unix:///run/rmem.sock"]
state-dir = "/var/lib/other"
insecure = true
stop-timeout = "3s"

[limits]
connections = 100
connections-per-address = 10
unopened-per-address = 5
handshake-timeout = "2s"
silence-timeout = "1m"
requests = 64
bytes-in-flight = "1MiB"
memory = "64MiB"

[[export]]
name = "data"
store = "file:///srv/data?size=1GiB"
read-only = true
read-rate = "20MiB"
write-rate = 1048576
allow = [
  { identity = "cn:alice", access = "read-write" },
  { identity = "psk:bob", access = "read-only" },
]

[[export]]
name = "scratch"
store = "mem://1GiB"
)",
                                      "f", keys(config));
  ASSERT_TRUE(status.ok()) << status.cause();
  ASSERT_EQ(config.listen.size(), 2u);
  EXPECT_EQ(config.listen[0].port, 7071);
  EXPECT_EQ(config.listen[1].path, "/run/rmem.sock");
  EXPECT_EQ(config.stop_timeout, 3s);
  const ServerOptions& o = config.options;
  EXPECT_EQ(o.state_dir, "/var/lib/other");
  EXPECT_TRUE(o.insecure);
  EXPECT_EQ(o.limits.connections, 100u);
  EXPECT_EQ(o.memory, 64u << 20);
  EXPECT_EQ(o.limits.per_host, 10u);
  EXPECT_EQ(o.limits.unopened_per_host, 5u);
  EXPECT_EQ(o.session.handshake_timeout, 2s);
  EXPECT_EQ(o.session.silence, 1min);
  EXPECT_EQ(o.session.max_requests, 64u);
  EXPECT_EQ(o.session.max_bytes, 1u << 20);
  ASSERT_EQ(o.exports.size(), 2u);
  EXPECT_EQ(o.exports[0].name, "data");
  EXPECT_EQ(o.exports[0].store.path, "/srv/data");
  EXPECT_TRUE(o.exports[0].read_only);
  EXPECT_EQ(o.exports[0].read_rate, 20u << 20);
  EXPECT_EQ(o.exports[0].write_rate, 1u << 20);
  EXPECT_EQ(o.exports[0].allow,
            (AllowList{{"cn:alice", Access::kWrite}, {"psk:bob", Access::kRead}}));
  EXPECT_FALSE(o.exports[1].read_only);
  EXPECT_EQ(o.exports[1].allow, std::nullopt);
}

TEST(ServerConfig, AnEmptyListIsOne) {
  Config config;
  EXPECT_TRUE(config::parse("[[export]]\nname = \"a\"\nstore = \"mem://1\"\nallow = []\n", "f",
                            keys(config))
                  .ok());
  EXPECT_EQ(config.options.exports[0].allow, AllowList{});
}

TEST(ServerConfig, MistakesHaveTheirPlace) {
  const std::string one = "[[export]]\nname = \"a\"\nstore = \"mem://1\"\n";
  EXPECT_EQ(mistake("listen = [\"127.0.0.1\"]\n").substr(0, 16), "f:1:11: `listen'");
  EXPECT_EQ(mistake("[limits]\nrequests = 0\n"),
            "f:2:12: `limits.requests' has to be from 1 to 65536");
  EXPECT_EQ(mistake(one + "[[export]]\nname = \"a\"\n"), "f:5:8: `export.name' `a' is given twice");
  EXPECT_EQ(mistake("[[export]]\nname = \"a/b\"\n").substr(0, 20), "f:2:8: `export.name'");
  EXPECT_EQ(mistake("[[export]]\nname = \"a\"\n"), "f:1:1: `export.store' is missing");
  EXPECT_EQ(mistake("[[export]]\nstore = \"mem://1MB\"\n").substr(0, 21), "f:2:9: `export.store'");
  EXPECT_EQ(mistake(one + "write-rate = \"1KiB\"\n"),
            "f:4:14: `export.write-rate' has to be 0, for none, or at least 64KiB");
  EXPECT_EQ(mistake(one + "allow = [\"cn:alice\"]\n"), "f:4:10: `export.allow' has to be a table");
  EXPECT_EQ(mistake(one + "allow = [{identity = \"cn:a\"}]\n"),
            "f:4:10: `export.allow.access' is missing");
  EXPECT_EQ(mistake(one + "allow = [{identity = \"alice\", access = \"read-only\"}]\n"),
            "f:4:22: `export.allow.identity' is not of the form KIND:NAME");
  EXPECT_EQ(mistake(one + "allow = [{identity = \"cn:a\", access = \"all\"}]\n"),
            "f:4:39: `export.allow.access' has to be `read-only' or `read-write'");
}

TEST(ServerConfig, WhatNeedsARestartIsNamed) {
  Config now, next;
  next.options.limits.connections = 1;
  next.stop_timeout = 1s;
  EXPECT_TRUE(fixed_changes(now, next).empty());
  next.listen.push_back(*transport::Address::parse("tcp://127.0.0.1"));
  next.options.state_dir = "/other";
  next.options.insecure = true;
  EXPECT_EQ(fixed_changes(now, next),
            (std::vector<std::string_view>{"listen", "state-dir", "insecure"}));
}

}  // namespace
}  // namespace rmem::server
