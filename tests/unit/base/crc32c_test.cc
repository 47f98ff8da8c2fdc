// SPDX-License-Identifier: MIT
#include "base/crc32c.hh"

#include <gtest/gtest.h>

#include <random>
#include <string_view>
#include <vector>

namespace rmem {
namespace {

std::span<const std::byte> bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// RFC 3720, B.4.
TEST(Crc32c, KnownAnswers) {
  EXPECT_EQ(crc32c(bytes("")), 0u);
  EXPECT_EQ(crc32c(bytes("123456789")), 0xe3069283u);
  EXPECT_EQ(crc32c(std::vector<std::byte>(32, std::byte{0})), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::vector<std::byte>(32, std::byte{0xff})), 0x62a8ab43u);
}

TEST(Crc32c, FastAndTableAgreeAtEveryLengthAndAlignment) {
  std::mt19937 random(1);
  std::vector<std::byte> data(70'000);
  for (auto& byte : data) byte = static_cast<std::byte>(random());
  for (std::size_t length : {0, 1, 7, 8, 9, 63, 4096, 12287, 12288, 12289, 24576, 65536, 69'990})
    for (std::size_t start : {0, 1, 3, 8}) {
      const auto part = std::span<const std::byte>(data).subspan(start, length);
      EXPECT_EQ(crc32c(part), internal::crc32c_table(part, 0)) << start << "+" << length;
    }
}

TEST(Crc32c, GoesOnWhereItStopped) {
  const auto all = bytes("the quick brown fox jumps over the lazy dog");
  for (std::size_t cut = 0; cut <= all.size(); ++cut)
    EXPECT_EQ(crc32c(all.subspan(cut), crc32c(all.first(cut))), crc32c(all));
}

}  // namespace
}  // namespace rmem
