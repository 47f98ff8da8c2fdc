// SPDX-License-Identifier: MIT
#include "store/mem.hh"

#include <gtest/gtest.h>

#include "support/store_ops.hh"

namespace rmem::store {
namespace {

class MemStoreTest : public testing::Test {
 protected:
  test::Loop loop;
  MemStore store{1ull << 40};
  test::StoreOps ops{loop, store};
};

TEST_F(MemStoreTest, TakesMemoryOnlyForWhatIsWritten) {
  EXPECT_EQ(store.allocated(), 0u);
  ops.write(1ull << 39, test::pattern(1, 1));
  EXPECT_EQ(store.allocated(), 64u << 10);
  ops.read(12345, std::size_t{100'000});
  EXPECT_EQ(store.allocated(), 64u << 10);
}

TEST_F(MemStoreTest, ZeroGivesMemoryBack) {
  ops.write(1000, test::pattern(1 << 20, 1));
  EXPECT_GT(store.allocated(), 1u << 20);
  ops.zero(0, 1ull << 40);
  EXPECT_EQ(store.allocated(), 0u);
}

TEST_F(MemStoreTest, EachIsAnotherStore) {
  MemStore other(4096);
  EXPECT_NE(store.geometry().identity, other.geometry().identity);
  EXPECT_NE(store.geometry().epoch, other.geometry().epoch);
}

}  // namespace
}  // namespace rmem::store
