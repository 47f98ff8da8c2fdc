// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "control/options.hh"

namespace rmem::control {
namespace {

AttachOptions good() {
  AttachOptions o;
  o.name = "data";
  o.source = "rmem://host/export";
  return o;
}

TEST(RegionName, FollowsTheContract) {
  for (const char* name : {"a", "0", "data-1", "A.b_c", "x..", "a--"}) {
    EXPECT_TRUE(valid_region_name(name)) << name;
  }
  EXPECT_TRUE(valid_region_name(std::string(64, 'a')));
  EXPECT_FALSE(valid_region_name(std::string(65, 'a')));
  for (const char* name :
       {"", ".", "..", "-a", "_a", ".a", "a/b", "a b", "a\n", "ä", "a;b", "$x"}) {
    EXPECT_FALSE(valid_region_name(name)) << name;
  }
}

TEST(AttachOptions, EachBadValueIsRefusedAsUsage) {
  EXPECT_TRUE(validate(good()).ok());
  const auto refused = [](auto change) {
    AttachOptions o = good();
    change(o);
    return validate(o).code() == Code::kUsage;
  };
  EXPECT_TRUE(refused([](auto& o) { o.name = "a/b"; }));
  EXPECT_TRUE(refused([](auto& o) { o.source = ""; }));
  EXPECT_TRUE(refused([](auto& o) { o.source = std::string(5000, 'x'); }));
  EXPECT_TRUE(refused([](auto& o) { o.chunk = 0; }));
  EXPECT_TRUE(refused([](auto& o) { o.chunk = 2048; }));
  EXPECT_TRUE(refused([](auto& o) { o.chunk = 5000; }));
  EXPECT_TRUE(refused([](auto& o) { o.chunk = 4u << 20; }));
  EXPECT_TRUE(refused([](auto& o) { o.mode = 04755; }));
  EXPECT_TRUE(refused([](auto& o) { o.on_loss = "panic"; }));
  EXPECT_TRUE(refused([](auto& o) { o.bind = "relative"; }));
  EXPECT_TRUE(refused([](auto& o) { o.bind = "/" + std::string(4090, 'x'); }));
  EXPECT_TRUE(refused([](auto& o) { o.fault_timeout = std::chrono::milliseconds(0); }));
  EXPECT_TRUE(refused([](auto& o) { o.sync_timeout = std::chrono::milliseconds(-1); }));
  EXPECT_TRUE(refused([](auto& o) { o.push_interval = std::chrono::milliseconds(1); }));
  EXPECT_TRUE(refused([](auto& o) { o.resident_limit = 4096; }));
  EXPECT_TRUE(refused([](auto& o) { o.dirty_limit = (1u << 20) - 1; }));
  EXPECT_TRUE(refused([](auto& o) { o.push_threshold = (64u << 10) - 1; }));
  EXPECT_FALSE(refused([](auto& o) { o.push_threshold = 64u << 10; }));
  EXPECT_TRUE(refused([](auto& o) {
    o.chunk = 2u << 20;
    o.resident_limit = (16u << 20) - 1;
  }));
  EXPECT_FALSE(refused([](auto& o) {
    o.chunk = 2u << 20;
    o.resident_limit = o.dirty_limit = 16u << 20;
  }));
  EXPECT_FALSE(refused([](auto& o) { o.chunk = 4096; }));
  EXPECT_FALSE(refused([](auto& o) { o.chunk = 2u << 20; }));
}

TEST(AttachOptions, SurviveTheKernel) {
  Notes notes;
  notes.options = good();
  notes.options.chunk = 1 << 20;
  notes.options.read_only = true;
  notes.options.uid = 1000;
  notes.options.gid = 100;
  notes.options.mode = 0640;
  notes.options.bind = "/srv/a b\n\"c\"";
  notes.options.bind_created = true;
  notes.options.on_loss = "kill";
  notes.options.resident_limit = 1ull << 40;
  notes.options.dirty_limit = 4u << 20;
  notes.options.push_threshold = 1u << 20;
  notes.options.fault_timeout = std::chrono::milliseconds(1234);
  notes.options.push_interval = std::chrono::milliseconds(50);
  notes.options.insecure = true;
  notes.options.take_over = true;
  notes.identity = {9, 8, 7};
  notes.claim_generation = ~0ull;
  auto back = Notes::from_blob(notes.to_blob());
  ASSERT_TRUE(back.ok()) << back.status().cause();
  EXPECT_TRUE(back->options.name.empty());  // the kernel has name and source
  back->options.name = notes.options.name;
  back->options.source = notes.options.source;
  EXPECT_EQ(back->options, notes.options);
  EXPECT_TRUE(back->options.bind_created);
  EXPECT_FALSE(back->options.take_over);  // was for once
  EXPECT_EQ(back->identity, notes.identity);
  EXPECT_EQ(back->claim_generation, notes.claim_generation);
}

TEST(AttachOptions, ForeignBlobsAreRefused) {
  for (const char* blob : {"", "{", "[]", "null", "{\"v\":2}", "{\"v\":1}", "\x01\x02",
                           "{\"v\":1,\"options\":[],\"identity\":\"\",\"claim\":0}",
                           "{\"v\":1,\"options\":{},\"identity\":\"xx\",\"claim\":0}",
                           "{\"v\":1,\"options\":{\"chunk\":-1},\"identity\":\"\"}"}) {
    EXPECT_FALSE(Notes::from_blob(blob).ok()) << blob;
  }
}

TEST(AttachOptions, JsonOfStrangersIsChecked) {
  using nlohmann::json;
  EXPECT_TRUE(options_from_json(json{{"name", "a"}, {"source", "x://y"}}).ok());
  for (const json& bad :
       {json{{"name", 1}}, json{{"chunk", -1}}, json{{"chunk", 1.5}}, json{{"chunk", "256KiB"}},
        json{{"read_only", 1}}, json{{"uid", 1ull << 40}}, json{{"mode", 010000}},
        json{{"fault_timeout_ms", 1ull << 40}}, json{{"resident_limit", 1}}, json::array()}) {
    EXPECT_EQ(options_from_json(bad).status().code(), Code::kUsage) << bad;
  }
}

}  // namespace
}  // namespace rmem::control
