// SPDX-License-Identifier: MIT
#include "pager/arena.hh"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

namespace rmem::pager {
namespace {

TEST(Arena, RoundsUpAndJoinsAgain) {
  Arena arena(4 << 20);
  const auto small = arena.take(1);
  EXPECT_EQ(small.size(), 4096u);
  EXPECT_EQ(arena.take(4097).size(), 8192u);
  EXPECT_EQ(arena.free_bytes(), (4u << 20) - 4096 - 8192);
  EXPECT_EQ(arena.take(2 << 20).size(), 2u << 20);
  EXPECT_TRUE(arena.take(2 << 20).empty());
  EXPECT_TRUE(arena.take(0).empty());
  EXPECT_TRUE(arena.take((2 << 20) + 1).empty());
}

TEST(Arena, BlocksNeverOverlapAndAllComesBack) {
  Arena arena(8 << 20);
  std::mt19937 random(3);
  std::vector<std::pair<std::span<std::byte>, unsigned char>> taken;
  for (int i = 0; i < 20000; ++i) {
    if (random() % 2 == 0) {
      auto block = arena.take(1 + random() % (512 << 10));
      if (block.empty()) continue;
      const auto tag = static_cast<unsigned char>(random());
      std::memset(block.data(), tag, block.size());
      taken.emplace_back(block, tag);
    } else if (!taken.empty()) {
      std::swap(taken[random() % taken.size()], taken.back());
      const auto [block, tag] = taken.back();
      taken.pop_back();
      ASSERT_EQ(block.front(), std::byte{tag});
      ASSERT_EQ(block.back(), std::byte{tag});
      arena.give_back(block);
    }
  }
  for (const auto& [block, tag] : taken) arena.give_back(block);
  EXPECT_EQ(arena.free_bytes(), arena.size());
  for (int i = 0; i < 4; ++i) EXPECT_FALSE(arena.take(2 << 20).empty());
}

}  // namespace
}  // namespace rmem::pager
