// SPDX-License-Identifier: MIT
#include "wire/compression.hh"

#include <gtest/gtest.h>

#include <deque>
#include <vector>

#include "support/store_ops.hh"
#include "wire/messages.hh"

namespace rmem::wire {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kBytes = 64 << 10;

// Text that says the same over and over, and noise.
std::vector<std::byte> text(std::size_t bytes) {
  std::vector<std::byte> made(bytes);
  const std::string words = "a page of the region, and another one of it; ";
  for (std::size_t i = 0; i < bytes; ++i) made[i] = static_cast<std::byte>(words[i % words.size()]);
  return made;
}
std::vector<std::byte> noise(std::size_t bytes) { return test::pattern(bytes, 77); }

TEST(Codec, GivesBackWhatItWasGiven) {
  for (const Codec codec : {Codec::kLz4, Codec::kZstd}) {
    for (const std::size_t size : {kCompressMin, kBytes, kCompressMax}) {
      const auto from = text(size);
      std::vector<std::byte> small(size), back(size);
      const std::size_t bytes = compress(codec, from, small);
      ASSERT_GT(bytes, 0u);
      ASSERT_LT(bytes, size / 10);
      ASSERT_TRUE(decompress(codec, std::span(small).first(bytes), back));
      EXPECT_EQ(back, from);
    }
  }
}

TEST(Codec, WhatDoesNotFitIsNotMade) {
  for (const Codec codec : {Codec::kLz4, Codec::kZstd}) {
    std::vector<std::byte> small(kBytes - kBytes / 16);
    EXPECT_EQ(compress(codec, noise(kBytes), small), 0u);
  }
  std::vector<std::byte> small(kBytes);
  EXPECT_EQ(compress(Codec::kNone, text(kBytes), small), 0u);
}

// Whatever a peer sends: exactly the length that was announced, or nothing.
TEST(Codec, OtherLengthsAndDamageAreRefused) {
  for (const Codec codec : {Codec::kLz4, Codec::kZstd}) {
    const auto from = text(kBytes);
    std::vector<std::byte> small(kBytes), back(kBytes);
    small.resize(compress(codec, from, small));
    for (const std::size_t other :
         {std::size_t{0}, std::size_t{1}, kBytes - 1, kBytes + 1, 4 * kBytes}) {
      std::vector<std::byte> wrong(other);
      EXPECT_FALSE(decompress(codec, small, wrong)) << other;
    }
    for (std::size_t cut = 0; cut < small.size(); ++cut)
      EXPECT_FALSE(decompress(codec, std::span(small).first(cut), back)) << cut;
    for (std::size_t at = 0; at < small.size(); ++at) {
      auto damaged = small;
      damaged[at] ^= std::byte{0x55};
      (void)decompress(codec, damaged, back);  // what comes out is the checksum's business
    }
    EXPECT_FALSE(decompress(codec, noise(1000), back));
  }
  std::vector<std::byte> back(10);
  EXPECT_FALSE(decompress(Codec::kNone, text(10), back));
}

TEST(Codec, FlagsAndFeaturesNameThem) {
  for (const Codec codec : {Codec::kNone, Codec::kLz4, Codec::kZstd})
    EXPECT_EQ(codec_of(flag::kReply | codec_flag(codec)), codec);
  EXPECT_EQ(codec_feature(Codec::kLz4) | codec_feature(Codec::kZstd), feature::kCompression);
  EXPECT_EQ(codec_feature(Codec::kNone), 0u);
}

// A link of so many bytes per second behind a socket with a buffer, and a CPU that takes so
// long for each byte that it compresses: the clock goes on by what is the later of the two.
class CompressorTest : public testing::Test {
 protected:
  // Sends it; returns how.
  Codec send(const std::vector<std::byte>& payload) {
    const auto offer = compressor.offer(payload);
    const std::size_t bytes = offer.codec == Codec::kNone ? payload.size() : offer.bytes.size();
    if (!compressor.plain()) now += seconds(static_cast<double>(payload.size()) / cpu);
    // What is on its way when the link is behind has to wait for room.
    link_free = std::max(link_free, now) + seconds(static_cast<double>(bytes) / link);
    queue.push_back({payload.size(), offer.tag});
    if (link_free - now > 2ms) {
      compressor.pause(true);
      now = link_free - 2ms;
    }
    compressor.sent(queue.front().first, queue.front().second);
    queue.pop_front();
    return offer.codec;
  }
  struct Sent {
    int plain = 0, compressed = 0;
    double seconds = 0;
  };
  Sent send(const std::vector<std::byte>& payload, int times) {
    Sent sent;
    const auto begun = now;
    for (int i = 0; i < times; ++i)
      ++(send(payload) == Codec::kNone ? sent.plain : sent.compressed);
    sent.seconds = std::chrono::duration<double>(now - begun).count();
    return sent;
  }
  static Compressor::Clock::duration seconds(double s) {
    return std::chrono::duration_cast<Compressor::Clock::duration>(
        std::chrono::duration<double>(s));
  }

  double link = 10e6, cpu = 400e6;
  Compressor::Clock::time_point now{};
  Compressor::Clock::time_point link_free{};
  std::deque<std::pair<std::size_t, std::uint32_t>> queue;
  Compressor compressor{feature::kCompression, [this] { return now; }};
};

TEST_F(CompressorTest, SlowLinkIsMadeFaster) {
  send(text(kBytes), 200);
  const Sent sent = send(text(kBytes), 800);
  EXPECT_GT(sent.compressed, 700);
  EXPECT_LT(sent.seconds, 800 * kBytes / link / 10);
}

TEST_F(CompressorTest, WhatCannotBeCompressedGoesAsItIs) {
  const Sent sent = send(noise(kBytes), 4000);
  EXPECT_EQ(sent.compressed, 0);
  EXPECT_LT(sent.seconds, 4000 * kBytes / link * 1.02);
}

TEST_F(CompressorTest, NothingIsTriedWhereTheSocketIsNeverFull) {
  link = 1e12;
  cpu = 1e12;
  for (int i = 0; i < 2000; ++i) {
    now += 1us;
    EXPECT_EQ(send(text(kBytes)), Codec::kNone);
  }
}

TEST_F(CompressorTest, LinkThatIsFasterThanTheCpuIsLeftAlone) {
  link = 1000e6;
  cpu = 200e6;
  send(text(kBytes), 2000);
  const Sent sent = send(text(kBytes), 20'000);
  EXPECT_LT(sent.compressed, 20'000 / 20);
  EXPECT_LT(sent.seconds, 20'000 * kBytes / link * 1.2);
}

TEST_F(CompressorTest, AnotherContentIsNoticed) {
  send(noise(kBytes), 1000);
  send(text(kBytes), 4000);
  EXPECT_GT(send(text(kBytes), 500).compressed, 400);
  send(noise(kBytes), 1000);
  EXPECT_EQ(send(noise(kBytes), 100).compressed, 0);
}

TEST_F(CompressorTest, LinkThatBecomesFastGetsItsBytesAsTheyAre) {
  send(text(kBytes), 1000);
  ASSERT_FALSE(compressor.plain());
  link = 4000e6;
  send(text(kBytes), 1000);
  EXPECT_LT(send(text(kBytes), 1000).compressed, 100);
}

TEST_F(CompressorTest, TimeWithNothingToSendDoesNotCount) {
  for (const double rate : {10e6, 1e12}) {
    link = rate;
    cpu = 1e12;
    for (int i = 0; i < 1000; ++i) {
      send(text(kBytes));
      now += 1us;
      compressor.pause(false);
      now += 1s;
      link_free = now;
    }
    EXPECT_EQ(compressor.plain(), rate == 1e12);
  }
}

TEST_F(CompressorTest, ShortAndOverlongPayloadsGoAsTheyAre) {
  send(text(kBytes), 1000);
  ASSERT_FALSE(compressor.plain());
  EXPECT_EQ(compressor.offer(text(kCompressMin - 1)).codec, Codec::kNone);
  EXPECT_EQ(compressor.offer(text(kCompressMax + 1)).codec, Codec::kNone);
  EXPECT_NE(compressor.offer(text(kCompressMax)).codec, Codec::kNone);
}

TEST_F(CompressorTest, OnlyWhatBothSidesKnowIsUsed) {
  for (const Codec codec : {Codec::kLz4, Codec::kZstd}) {
    Compressor one(codec_feature(codec), [this] { return now; });
    for (int i = 0; i < 1000; ++i) {
      const auto offer = one.offer(text(kBytes));
      EXPECT_TRUE(offer.codec == Codec::kNone || offer.codec == codec);
      one.pause(true);
      now += seconds(
          static_cast<double>(offer.codec == Codec::kNone ? kBytes : offer.bytes.size()) / link);
      one.sent(kBytes, offer.tag);
    }
    EXPECT_FALSE(one.plain());
  }
}

}  // namespace
}  // namespace rmem::wire
