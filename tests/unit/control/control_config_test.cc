// SPDX-License-Identifier: MIT
#include "control/config.hh"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace rmem::control {
namespace {

using namespace std::chrono_literals;

std::string mistake(std::string_view document) {
  Config config;
  const Status status = config::parse(document, "f", keys(config));
  EXPECT_EQ(status.code(), Code::kUsage) << document;
  return status.cause();
}

TEST(RmemdConfig, EveryKey) {
  Config config;
  const Status status = config::parse(R"(
socket = "/run/other.sock"
instance = "other"
state-dir = "/var/lib/other"
stop-timeout = "3s"
hedge = "auto"
bulk-connections = 4
page-connections = 3
[region]
resident-limit = "16MiB"
chunk = "1MiB"
on-loss = "error"
fault-timeout = "1s"
sync-timeout = "2s"
push-interval = "500ms"
dirty-limit = "8MiB"
pull = "all"
pull-rate = "20MiB"
push-rate = 1000
)",
                                      "f", keys(config));
  ASSERT_TRUE(status.ok()) << status.cause();
  EXPECT_EQ(config.socket, "/run/other.sock");
  EXPECT_EQ(config.instance, "other");
  EXPECT_EQ(config.state_dir, "/var/lib/other");
  EXPECT_EQ(config.stop_timeout, 3s);
  EXPECT_TRUE(config.hedge);
  EXPECT_EQ(config.remote.bulk_connections, 4u);
  EXPECT_EQ(config.remote.page_connections, 3u);
  AttachOptions expected;
  expected.chunk = 1 << 20;
  expected.resident_limit = 16 << 20;
  expected.dirty_limit = 8 << 20;
  expected.on_loss = "error";
  expected.fault_timeout = 1s;
  expected.sync_timeout = 2s;
  expected.push_interval = 500ms;
  expected.pull = "all";
  EXPECT_TRUE(config.defaults == expected);
  EXPECT_EQ(config.defaults.pull_rate, 20u << 20);
  EXPECT_EQ(config.defaults.push_rate, 1000u);
}

TEST(RmemdConfig, MistakesHaveTheirPlace) {
  EXPECT_EQ(mistake("sockets = \"/x\"\n"), "f:1:1: `sockets' is no key of this file");
  EXPECT_EQ(mistake("instance = \"a/b\"\n"), "f:1:12: `instance' is not a name");
  EXPECT_EQ(mistake("\n[region]\nname = \"a\"\n"), "f:3:1: `region.name' is no key of this file");
  EXPECT_EQ(mistake("hedge = true\n"), "f:1:9: `hedge' has to be `off' or `auto'");
  EXPECT_EQ(mistake("[region]\npull = \"some\"\n"),
            "f:2:8: `region.pull' has to be `none' or `all' or `recorded'");
  // What is wrong only together is told of the whole.
  EXPECT_EQ(mistake("[region]\nchunk = 5000\n"), "f:1:1: `region' --chunk is 5000 bytes");
  EXPECT_EQ(mistake("[region]\nchunk = \"2MiB\"\ndirty-limit = \"2MiB\"\n"),
            "f:1:1: `region' --dirty-limit is 2097152 bytes");
}

TEST(RmemdConfig, DefaultsAreForWhatARequestDoesNotSay) {
  AttachOptions defaults;
  defaults.chunk = 4096;
  defaults.on_loss = "kill";
  const auto options =
      options_from_json({{"name", "a"}, {"source", "rmem://h/x"}, {"on_loss", "wait"}}, defaults);
  ASSERT_TRUE(options.ok());
  EXPECT_EQ(options->chunk, 4096u);
  EXPECT_EQ(options->on_loss, "wait");
  EXPECT_EQ(options->name, "a");
}

TEST(RmemdConfig, WhatNeedsARestartIsNamed) {
  Config now, next;
  next.defaults.chunk = 4096;
  next.stop_timeout = 1s;
  EXPECT_TRUE(fixed_changes(now, next).empty());
  next.socket = "/other";
  next.instance = "other";
  EXPECT_EQ(fixed_changes(now, next), (std::vector<std::string_view>{"socket", "instance"}));
}

}  // namespace
}  // namespace rmem::control
