// SPDX-License-Identifier: MIT
#include "server/buffers.hh"

#include <gtest/gtest.h>

namespace rmem::server {
namespace {

struct Told final : Buffers::Waiter {
  int times = 0;
  void there_is_room() override { ++times; }
};

TEST(Buffers, AreLargeEnoughAndUsedAgain) {
  Buffers buffers(1 << 30);
  for (const std::size_t bytes :
       {std::size_t{0}, std::size_t{1}, std::size_t{4096}, std::size_t{4097},
        std::size_t{256 << 10}, std::size_t{4 << 20}}) {
    auto first = buffers.take(bytes);
    ASSERT_GE(first.capacity, std::max<std::size_t>(bytes, 1));
    EXPECT_LT(first.capacity, std::max<std::size_t>(2 * bytes, 4097));
    EXPECT_EQ(buffers.in_use(), first.capacity);
    const std::byte* const where = first.bytes();
    buffers.give(std::move(first));
    EXPECT_EQ(buffers.in_use(), 0u);
    auto again = buffers.take(bytes);
    EXPECT_EQ(again.bytes(), where);
    buffers.give(std::move(again));
  }
  buffers.give({});  // none
  EXPECT_EQ(buffers.in_use(), 0u);
}

TEST(Buffers, WhatIsKeptIsBounded) {
  Buffers buffers(1 << 30);
  std::vector<Buffers::Buffer> all;
  for (int i = 0; i < 100; ++i) all.push_back(buffers.take(4 << 20));
  EXPECT_EQ(buffers.in_use(), 400u << 20);
  for (auto& one : all) buffers.give(std::move(one));
  EXPECT_EQ(buffers.in_use(), 0u);
  EXPECT_LE(buffers.kept(), 64u << 20);
}

TEST(Buffers, WhoWaitsIsToldOnceWhenThereIsRoom) {
  Buffers buffers(1 << 20);
  Told one, other, gone;
  auto first = buffers.take(1 << 20);
  auto second = buffers.take(1 << 20);
  EXPECT_TRUE(buffers.scarce());
  buffers.wait(one);
  buffers.wait(one);
  buffers.wait(other);
  buffers.wait(gone);
  buffers.leave(gone);
  buffers.give(std::move(first));
  EXPECT_TRUE(buffers.scarce());
  EXPECT_EQ(one.times, 0);
  buffers.give(std::move(second));
  EXPECT_FALSE(buffers.scarce());
  EXPECT_EQ(one.times, 1);
  EXPECT_EQ(other.times, 1);
  EXPECT_EQ(gone.times, 0);
  buffers.give(buffers.take(2 << 20));
  EXPECT_EQ(one.times, 1);

  auto third = buffers.take(1 << 20);
  buffers.wait(one);
  buffers.set_limit(4 << 20);
  EXPECT_EQ(one.times, 2);
  buffers.give(std::move(third));
}

}  // namespace
}  // namespace rmem::server
