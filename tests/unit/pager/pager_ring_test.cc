// SPDX-License-Identifier: MIT
// What a hostile or broken kernel could put into the ring.
#include "fakes.hh"

#include <random>

namespace rmem::pager {
namespace {

class PagerRing : public PagerTest {};

TEST_F(PagerRing, EntriesThatMakeNoSenseAreRefused) {
  const rmem_request bad[] = {
      entry(1, RMEM_OP_FETCH, 0, 0),
      entry(2, RMEM_OP_FETCH, kSize, 4096),
      entry(3, RMEM_OP_FETCH, kSize - 4096, 8192),
      entry(4, RMEM_OP_FETCH, ~0ull - 4095, 4096),
      entry(5, RMEM_OP_FETCH, 4096, ~0ull),
      entry(6, RMEM_OP_FETCH, 0, kChunk + 4096),
      entry(7, RMEM_OP_FETCH, 100, 4096),
      entry(8, 0, 0, 4096),
      entry(9, 200, 0, 4096),
      entry(10, RMEM_OP_WRITE, 0, 2 * kChunk),
      entry(11, RMEM_OP_ZERO, kSize, 1),
  };
  for (const rmem_request& e : bad) pager->accept(e);
  rmem_request payload = entry(12, RMEM_OP_WRITE, 0, kChunk);
  payload.payload = kChunk + 1;
  pager->accept(payload);
  pager->pump();
  EXPECT_TRUE(store.operations.empty());
  for (std::uint64_t cookie = 1; cookie <= 12; ++cookie) {
    EXPECT_EQ(kernel.completed_with(cookie), EIO) << cookie;
  }
  EXPECT_EQ(pager->stats(kId).malformed, 12u);
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

TEST_F(PagerRing, UnknownRegionIsIgnored) {
  rmem_request e = entry(1, RMEM_OP_FETCH, 0, 4096);
  e.region_id = 99;
  pager->accept(e);
  pager->pump();
  EXPECT_TRUE(kernel.completions.empty());
}

TEST_F(PagerRing, DuplicatesAreHarmless) {
  fetch(1, 0);
  fetch(1, 0);
  write(2);
  write(2);
  pager->pump();
  kernel.fill_errors = {0, ENOENT};
  store.answer_all(Kind::kRead);
  store.answer_all(Kind::kWrite);
  store.answer_all(Kind::kFlush);
  EXPECT_EQ(kernel.fills.size(), 1u);
  EXPECT_EQ(kernel.completed_with(2), 0);
  EXPECT_EQ(pager->requests_in_use(), 0u);
}

TEST_F(PagerRing, NoiseNeitherCrashesNorLeaks) {
  std::mt19937_64 random(20240607);
  store.immediate = true;
  for (int i = 0; i < 20000; ++i) {
    rmem_request e{};
    auto* bytes = reinterpret_cast<unsigned char*>(&e);
    for (std::size_t j = 0; j < sizeof(e); ++j) {
      bytes[j] = static_cast<unsigned char>(random());
    }
    e.region_id = kId;
    if (i % 2) {  // half of them close to sensible
      e.op = static_cast<__u8>(random() % 5);
      e.offset = random() % (2 * kSize) & ~4095ull;
      e.length = random() % (2 * kChunk);
      e.payload = random() % (2 * kChunk);
      e.cookie = random() % (kSize / 4096);
    }
    pager->accept(e);
    if (i % 16 == 0) pager->pump();
  }
  pager->pump();
  EXPECT_EQ(pager->requests_in_use(), 0u);
  EXPECT_EQ(pager->buffer_bytes_free(), Pager::Options{}.buffer_bytes);
}

TEST_F(PagerRing, WhatCanBeAskedAgainMakesRoom) {
  Pager::Options small;
  small.requests = 16;
  small.request_limit = 64;
  start(small);
  for (std::uint64_t i = 0; i < 64; ++i) write(i + 1);
  EXPECT_EQ(kernel.completions.size(), 16u);  // three quarters stay
  EXPECT_EQ(kernel.completed_with(64), EAGAIN);
  fetch(1000, 1, RMEM_REQ_PREFETCH);
  EXPECT_EQ(kernel.completed_with(1000), ECANCELED);
  EXPECT_TRUE(pager->room());
  for (std::uint64_t i = 0; i < 16; ++i) fetch(2000 + i, i, RMEM_REQ_AGAIN);
  EXPECT_FALSE(pager->room());
  store.immediate = true;
  pager->pump();
  EXPECT_TRUE(pager->room());
  EXPECT_EQ(kernel.fills.size(), 16u);
}

}  // namespace
}  // namespace rmem::pager
