// SPDX-License-Identifier: MIT
#include "base/units.hh"

#include <gtest/gtest.h>

namespace rmem {
namespace {

using std::chrono::milliseconds;

TEST(Size, AcceptsBytesAndBinaryUnits) {
  EXPECT_EQ(*parse_size("0"), 0u);
  EXPECT_EQ(*parse_size("4097"), 4097u);
  EXPECT_EQ(*parse_size("17B"), 17u);
  EXPECT_EQ(*parse_size("64KiB"), 65536u);
  EXPECT_EQ(*parse_size("16MiB"), 16u << 20);
  EXPECT_EQ(*parse_size("1GiB"), 1ull << 30);
  EXPECT_EQ(*parse_size("8TiB"), 8ull << 40);
}

TEST(Size, RefusesEverythingElse) {
  for (const char* text :
       {"", "KiB", "-1", "+1", " 1", "1 ", "1.5GiB", "64kib", "64KB", "64K", "1GiBx", "0x10",
        "9223372036854775808", "8388608TiB", "99999999999999999999"}) {
    const auto size = parse_size(text);
    ASSERT_FALSE(size.ok()) << text;
    EXPECT_EQ(size.status().code(), Code::kUsage);
    EXPECT_NE(size.status().cause().find(text), std::string::npos);
  }
}

TEST(Duration, AcceptsWholeNumbersWithAUnit) {
  EXPECT_EQ(*parse_duration("500ms"), milliseconds(500));
  EXPECT_EQ(*parse_duration("30s"), milliseconds(30'000));
  EXPECT_EQ(*parse_duration("5m"), milliseconds(300'000));
  EXPECT_EQ(*parse_duration("2h"), milliseconds(7'200'000));
  EXPECT_EQ(*parse_duration("0"), milliseconds(0));
  EXPECT_EQ(*parse_duration("0s"), milliseconds(0));
}

TEST(Duration, RefusesEverythingElse) {
  for (const char* text :
       {"", "30", "s", "1.5s", "-1s", "1 s", "1d", "0d", "1us", "9223372036854775807s"})
    EXPECT_FALSE(parse_duration(text).ok()) << text;
}

TEST(Size, IsFormattedExactly) {
  EXPECT_EQ(format_size(0), "0B");
  EXPECT_EQ(format_size(1), "1B");
  EXPECT_EQ(format_size(65536), "64KiB");
  EXPECT_EQ(format_size(65537), "65537B");
  EXPECT_EQ(format_size(3ull << 30), "3GiB");
}

}  // namespace
}  // namespace rmem
