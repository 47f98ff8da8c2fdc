// SPDX-License-Identifier: MIT
#include "base/cli.hh"

#include <gtest/gtest.h>

#include <initializer_list>

namespace rmem::cli {
namespace {

struct Options {
  std::uint64_t size = 7;
  std::chrono::milliseconds time{9};
  bool json = false;
};

class CliTest : public testing::Test {
 protected:
  std::optional<int> run(std::initializer_list<const char*> arguments) {
    CLI::App app("Does nothing.", "program");
    add_size(app, "--size", options.size, "a size");
    add_duration(app, "--time", options.time, "a time");
    app.add_flag("--json", options.json, "as JSON");
    std::vector<const char*> argv = {"program"};
    argv.insert(argv.end(), arguments.begin(), arguments.end());
    testing::internal::CaptureStderr();
    testing::internal::CaptureStdout();
    const auto code = parse(app, static_cast<int>(argv.size()), argv.data());
    out = testing::internal::GetCapturedStdout();
    err = testing::internal::GetCapturedStderr();
    return code;
  }
  Options options;
  std::string out, err;
};

TEST_F(CliTest, GoodArgumentsLetTheProgramGoOn) {
  EXPECT_EQ(run({"--size", "64KiB", "--time=30s"}), std::nullopt);
  EXPECT_EQ(options.size, 65536u);
  EXPECT_EQ(options.time, std::chrono::seconds(30));
}

TEST_F(CliTest, DefaultsStay) {
  EXPECT_EQ(run({}), std::nullopt);
  EXPECT_EQ(options.size, 7u);
  EXPECT_EQ(options.time, std::chrono::milliseconds(9));
}

TEST_F(CliTest, EveryMistakeIsAUsageError) {
  for (const auto& arguments : std::initializer_list<std::initializer_list<const char*>>{
           {"--size", "64kb"}, {"--size"}, {"--time", "3"}, {"--unknown"}, {"surplus"}}) {
    EXPECT_EQ(run(arguments), 2);
    EXPECT_EQ(out, "");
    EXPECT_NE(err.find("program: "), std::string::npos);
    EXPECT_NE(err.find("--help"), std::string::npos);
  }
}

TEST_F(CliTest, MistakesAreToldAsJsonWhereJsonIsWanted) {
  EXPECT_EQ(run({"--size", "x", "--json"}), 2);
  EXPECT_EQ(err.find("{\"schema\":1,\"error\":{\"code\":2,\"name\":\"usage\",\"cause\":\""), 0u)
      << err;
}

TEST_F(CliTest, HelpIsNoMistake) {
  EXPECT_EQ(run({"--help"}), 0);
  EXPECT_NE(out.find("--size"), std::string::npos);
  EXPECT_EQ(err, "");
}

TEST(CliFail, TellsCauseAndNextStepAndReturnsTheCode) {
  testing::internal::CaptureStderr();
  EXPECT_EQ(fail("program", Status(Code::kUnreachable, "nobody there", "go there")), 7);
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "program: nobody there\nprogram: next: go there\n");
  EXPECT_EQ(fail("program", Status()), 0);
}

TEST(CliFail, JsonIsValidWhateverTheCauseQuotes) {
  EXPECT_EQ(error_json(Status(Code::kFailed, "a \"b\"\n\xff", "h")),
            "{\"schema\":1,\"error\":{\"code\":1,\"name\":\"failed\",\"cause\":\"a "
            "\\\"b\\\"\\n\xef\xbf\xbd\",\"hint\":\"h\"}}");
}

}  // namespace
}  // namespace rmem::cli
