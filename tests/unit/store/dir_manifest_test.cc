// SPDX-License-Identifier: MIT
#include "store/dir_manifest.hh"

#include <gtest/gtest.h>

#include "base/bytes.hh"
#include "base/crc32c.hh"

namespace rmem::store {
namespace {

DirManifest sample() {
  DirManifest manifest = *DirManifest::make((70 << 20) + 1, 1 << 20);
  for (const std::uint64_t chunk : {0, 5, 63, 64, 70}) manifest.written.set(chunk);
  return manifest;
}

// With a checksum that fits.
std::vector<std::byte> signed_again(std::vector<std::byte> bytes) {
  const auto sum = crc32c(std::span(bytes).first(bytes.size() - 4));
  store_le<std::uint32_t>(&bytes[bytes.size() - 4], sum);
  return bytes;
}

TEST(DirManifest, IsReadBackAsItWasWritten) {
  const DirManifest before = sample();
  const auto after = DirManifest::decode(before.encode());
  ASSERT_TRUE(after.ok()) << after.status().cause();
  EXPECT_EQ(after->uuid, before.uuid);
  EXPECT_EQ(after->size, before.size);
  EXPECT_EQ(after->chunk, before.chunk);
  EXPECT_EQ(after->chunks(), 71u);
  EXPECT_TRUE(after->written == before.written);
}

TEST(DirManifest, EveryFlippedBitIsNoticed) {
  auto bytes = sample().encode();
  for (std::size_t i = 0; i < bytes.size() * 8; ++i) {
    const auto bit = std::byte{1} << (i % 8);
    bytes[i / 8] ^= bit;
    EXPECT_EQ(DirManifest::decode(bytes).status().code(), Code::kCorrupt) << "bit " << i;
    bytes[i / 8] ^= bit;
  }
}

TEST(DirManifest, EveryOtherLengthIsNoticed) {
  auto bytes = sample().encode();
  for (std::size_t length = 0; length < bytes.size(); ++length)
    EXPECT_EQ(DirManifest::decode(std::span(bytes).first(length)).status().code(), Code::kCorrupt);
  bytes.resize(bytes.size() + 8);
  EXPECT_EQ(DirManifest::decode(bytes).status().code(), Code::kCorrupt);
  EXPECT_EQ(DirManifest::decode(signed_again(bytes)).status().code(), Code::kCorrupt);
}

TEST(DirManifest, NonsenseWithARightChecksumIsRefused) {
  auto other_version = sample().encode();
  store_le<std::uint32_t>(&other_version[8], 2);
  EXPECT_EQ(DirManifest::decode(signed_again(other_version)).status().code(), Code::kFailed);
  auto reserved = sample().encode();
  store_le<std::uint32_t>(&reserved[12], 1);
  EXPECT_EQ(DirManifest::decode(signed_again(reserved)).status().code(), Code::kCorrupt);
  auto odd_chunk = sample().encode();
  store_le<std::uint64_t>(&odd_chunk[40], (1 << 20) + 1);
  EXPECT_EQ(DirManifest::decode(signed_again(odd_chunk)).status().code(), Code::kCorrupt);
  auto beyond = sample();
  beyond.written.set(71);
  EXPECT_EQ(DirManifest::decode(beyond.encode()).status().code(), Code::kCorrupt);
}

TEST(DirManifest, WhatCannotBeIsAUsageError) {
  EXPECT_EQ(DirManifest::make(0, 1 << 20).status().code(), Code::kUsage);
  for (const std::uint64_t chunk : {0, 1, 2048, 5000, 3 << 20})
    EXPECT_EQ(DirManifest::make(1 << 20, chunk).status().code(), Code::kUsage) << chunk;
  EXPECT_EQ(DirManifest::make(1 << 20, 1ull << 31).status().code(), Code::kUsage);
  const std::uint64_t most = DirManifest::kMaxChunks * 4096;
  EXPECT_TRUE(DirManifest::make(most, 4096).ok());
  EXPECT_EQ(DirManifest::make(most + 1, 4096).status().code(), Code::kUsage);
}

TEST(Bitmap, NextFindsEachBitAndThenTheEnd) {
  Bitmap bits(200);
  std::vector<std::uint64_t> found;
  for (const std::uint64_t i : {0, 63, 64, 130, 199}) bits.set(i);
  for (std::uint64_t i = bits.next(0); i < 200; i = bits.next(i + 1)) found.push_back(i);
  EXPECT_EQ(found, (std::vector<std::uint64_t>{0, 63, 64, 130, 199}));
  EXPECT_EQ(bits.next(200), 256u);
  EXPECT_EQ(bits.next(256), 256u);
  EXPECT_EQ(bits.count(), 5u);
  bits.reset(63);
  EXPECT_EQ(bits.next(1), 64u);
}

}  // namespace
}  // namespace rmem::store
