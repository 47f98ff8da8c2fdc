// SPDX-License-Identifier: MIT
#include "base/config_file.hh"

#include <gtest/gtest.h>

#include <fstream>

#include "support/temp_dir.hh"

namespace rmem::config {
namespace {

using namespace std::chrono_literals;

class ConfigFileTest : public testing::Test {
 protected:
  Table schema() {
    Table limits;
    limits.key("requests", number(requests, 1u, 1000u)).key("bytes", size(bytes, 1024, 1 << 20));
    Table root;
    root.key("name", text(name))
        .key("insecure", boolean(insecure))
        .key("timeout", duration(timeout, 100ms, 1h))
        .key("level", word<int>(level, {{"low", 1}, {"high", 2}}))
        .key("listen", list(parsed([this](const std::string& one) {
               if (one.empty()) return Status(Code::kUsage, "is empty", "write something");
               listen.push_back(one);
               return Status();
             })))
        .key("limits", table(limits))
        .key("export", tables([this](const Value& value) {
               std::string one;
               Status taken = Table().required("name", text(one)).take(value);
               exports.push_back(one);
               return taken;
             }));
    return root;
  }
  Status parse(std::string_view document) { return config::parse(document, "f.toml", schema()); }
  std::string mistake(std::string_view document) {
    const Status status = parse(document);
    EXPECT_EQ(status.code(), Code::kUsage) << document;
    return status.cause();
  }

  std::string name;
  bool insecure = false;
  std::chrono::milliseconds timeout{0};
  int level = 0;
  std::uint32_t requests = 7;
  std::uint64_t bytes = 9;
  std::vector<std::string> listen, exports;
};

TEST_F(ConfigFileTest, PutsEachValueWhereItBelongs) {
  const Status status = parse(R"(
name = "n"   # a comment
insecure = true
timeout = "2s"
level = "high"
listen = ["a", "b"]
[limits]
requests = 10
bytes = "4KiB"
[[export]]
name = "one"
[[export]]
name = "two"
)");
  ASSERT_TRUE(status.ok()) << status.cause();
  EXPECT_EQ(name, "n");
  EXPECT_TRUE(insecure);
  EXPECT_EQ(timeout, 2s);
  EXPECT_EQ(level, 2);
  EXPECT_EQ(listen, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(requests, 10u);
  EXPECT_EQ(bytes, 4096u);
  EXPECT_EQ(exports, (std::vector<std::string>{"one", "two"}));
}

TEST_F(ConfigFileTest, WhatIsNotThereStaysAsItWas) {
  EXPECT_TRUE(parse("").ok());
  EXPECT_TRUE(parse("[limits]\nbytes = 2048\n").ok());
  EXPECT_EQ(requests, 7u);
  EXPECT_EQ(bytes, 2048u);
}

TEST_F(ConfigFileTest, OthersMayBeIgnored) {
  Table limits;
  limits.key("requests", number(requests, 1u, 1000u));
  Table root;
  root.key("limits", table(limits)).ignore_others();
  EXPECT_TRUE(config::parse("name = 7\n[limits]\nrequests = 3\n", "f.toml", root).ok());
  EXPECT_EQ(requests, 3u);
  EXPECT_FALSE(config::parse("[limits]\nname = 7\n", "f.toml", root).ok());
  EXPECT_FALSE(config::parse("name =\n", "f.toml", root).ok());
}

TEST_F(ConfigFileTest, MistakesAreToldWithTheirPlace) {
  EXPECT_EQ(mistake("\n  nam = 1\n"), "f.toml:2:3: `nam' is no key of this file");
  EXPECT_EQ(mistake("[limits]\nrequest = 1\n"),
            "f.toml:2:1: `limits.request' is no key of this file");
  EXPECT_EQ(mistake("[tls]\n"), "f.toml:1:2: `tls' is no key of this file");
  EXPECT_EQ(mistake("name = 1\n"), "f.toml:1:8: `name' has to be text in quotes");
  EXPECT_EQ(mistake("insecure = \"yes\"\n"), "f.toml:1:12: `insecure' has to be true or false");
  EXPECT_EQ(mistake("[limits]\nrequests = 1001\n"),
            "f.toml:2:12: `limits.requests' has to be from 1 to 1000");
  EXPECT_EQ(mistake("limits = { requests = -1 }\n"),
            "f.toml:1:23: `limits.requests' has to be from 1 to 1000");
  EXPECT_EQ(mistake("limits.requests = 1.5\n"),
            "f.toml:1:19: `limits.requests' has to be a whole number");
  EXPECT_EQ(mistake("limits = 1\n"), "f.toml:1:10: `limits' has to be a table");
  EXPECT_EQ(mistake("limits.bytes = true\n"),
            "f.toml:1:16: `limits.bytes' has to be a size, as in \"64KiB\"");
  EXPECT_EQ(mistake("limits.bytes = 1\n"), "f.toml:1:16: `limits.bytes' has to be at least 1KiB");
  EXPECT_EQ(mistake("limits.bytes = \"1GiB\"\n"),
            "f.toml:1:16: `limits.bytes' has to be at most 1MiB");
  EXPECT_EQ(mistake("timeout = 30\n"), "f.toml:1:11: `timeout' has to be a time, as in \"30s\"");
  EXPECT_EQ(mistake("timeout = \"2h\"\n"), "f.toml:1:11: `timeout' has to be from 100ms to 3600s");
  EXPECT_EQ(mistake("level = \"middle\"\n"), "f.toml:1:9: `level' has to be `low' or `high'");
  EXPECT_EQ(mistake("listen = \"a\"\n"), "f.toml:1:10: `listen' has to be a list");
  EXPECT_EQ(mistake("listen = [\"a\",\n  \"\"]\n"), "f.toml:2:3: `listen' is empty");
  EXPECT_EQ(parse("listen = [\"\"]\n").hint(), "write something");
  EXPECT_EQ(mistake("[[export]]\nname = \"a\"\n\n[[export]]\n"),
            "f.toml:4:1: `export.name' is missing");
  EXPECT_EQ(mistake("[export]\nname = \"a\"\n"), "f.toml:1:1: `export' has to be a list");
  EXPECT_EQ(mistake("export = [1]\n"), "f.toml:1:11: `export' has to be a table");
}

TEST_F(ConfigFileTest, TheFirstMistakeOfTheFileIsTheOneThatIsTold) {
  EXPECT_EQ(mistake("z = 1\na = 2\n"), "f.toml:1:1: `z' is no key of this file");
}

TEST_F(ConfigFileTest, KnownKeysAreInTheHint) {
  EXPECT_EQ(parse("[limits]\nx = 1\n").hint(), "keys here are requests, bytes");
}

TEST_F(ConfigFileTest, WhatIsNotTomlHasAPlaceToo) {
  EXPECT_EQ(mistake("name = \"n\"\nname = \"m\"\n").substr(0, 9), "f.toml:2:");
  EXPECT_EQ(mistake("name = \n").substr(0, 9), "f.toml:1:");
  // What toml++ 3.3 takes for impossible.
  for (const char* text : {"[,\n", "[\u0447]\n", "name = \u00e4\n", "\u0447 = 1\n"})
    EXPECT_EQ(mistake(text).substr(0, 9), "f.toml:1:") << text;
  EXPECT_EQ(mistake("name = \"\xff\"\n").substr(0, 9), "f.toml:1:");
}

TEST_F(ConfigFileTest, NothingThatIsQuotedBreaksALine) {
  const std::string told = mistake("\"a\\nb\\u001b\" = 1\n");
  EXPECT_EQ(told, "f.toml:1:1: `a?b?' is no key of this file");
  EXPECT_LT(mistake('"' + std::string(5000, 'x') + "\" = 1\n").size(), 400u);
  EXPECT_EQ(mistake("name = \"a\\u0000b\"\n"), "f.toml:1:8: `name' has a NUL in it");
}

TEST_F(ConfigFileTest, FilesThatCannotBeReadAreNamed) {
  const test::TempDir dir;
  EXPECT_EQ(read(dir / "none", schema()).cause(), dir / "none: No such file or directory");
  EXPECT_EQ(read(dir.path(), schema()).cause(), dir.path() + ": Is a directory");
  std::ofstream(dir / "large") << std::string(kMostBytes + 1, '#');
  EXPECT_EQ(read(dir / "large", schema()).cause(), dir / "large: larger than 1MiB");
  std::ofstream(dir / "good") << "name = \"n\"\n";
  EXPECT_TRUE(read(dir / "good", schema()).ok());
  EXPECT_EQ(name, "n");
  EXPECT_TRUE(read("/dev/null", schema()).ok());
}

}  // namespace
}  // namespace rmem::config
