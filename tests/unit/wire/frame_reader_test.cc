// SPDX-License-Identifier: MIT
#include "wire/frame_reader.hh"

#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <random>

#include "base/crc32c.hh"

namespace rmem::wire {
namespace {

// Keeps every frame it gets.
struct Keeper final : FrameReader::Sink {
  struct Frame {
    Header header;
    std::vector<std::byte> payload;
    bool intact = false;
  };
  std::deque<Frame> frames;
  std::size_t whole = 0;
  FrameReader::Next on_headers = FrameReader::Next::kGoOn;
  FrameReader::Next on_frames = FrameReader::Next::kGoOn;

  FrameReader::Next on_header(const Header& header, std::span<std::byte>& place) override {
    frames.push_back({header, std::vector<std::byte>(header.payload), false});
    place = frames.back().payload;
    return on_headers;
  }
  FrameReader::Next on_frame(const Header&, bool intact) override {
    frames.back().intact = intact;
    ++whole;
    return on_frames;
  }
};

std::vector<std::byte> frame(std::uint64_t request, std::size_t payload, bool checksum = false) {
  std::vector<std::byte> bytes(kHeaderBytes + payload);
  for (std::size_t i = 0; i < payload; ++i)
    bytes[kHeaderBytes + i] = static_cast<std::byte>(request + i);
  Header header;
  header.type = Type::kWrite;
  header.request = request;
  header.payload = static_cast<std::uint32_t>(payload);
  if (checksum) {
    header.flags = flag::kChecksum;
    header.checksum = crc32c(std::span(bytes).subspan(kHeaderBytes));
  }
  encode(header, std::span(bytes).first<kHeaderBytes>());
  return bytes;
}

// Hands over at most `step` bytes at a time, as a socket might.
FrameReader::State feed(FrameReader& reader, std::span<const std::byte> bytes, std::size_t step) {
  FrameReader::State state = FrameReader::State::kMore;
  while (!bytes.empty() && state == FrameReader::State::kMore) {
    std::size_t moved = 0;
    for (const iovec& space : reader.receive_space()) {
      const std::size_t count = std::min({space.iov_len, bytes.size(), step - moved});
      std::memcpy(space.iov_base, bytes.data(), count);
      bytes = bytes.subspan(count);
      moved += count;
    }
    EXPECT_GT(moved, 0u);
    state = reader.received(moved);
  }
  return state;
}

TEST(FrameReader, FindsTheFramesHoweverTheStreamIsCut) {
  std::vector<std::byte> stream;
  const std::size_t payloads[] = {0, 1, 63, 64, 65, 0, 4000, 1000, 2048, 0, 4096};
  for (std::size_t i = 0; i < std::size(payloads); ++i) {
    const auto bytes = frame(i, payloads[i], payloads[i] > 0 && i % 2);
    stream.insert(stream.end(), bytes.begin(), bytes.end());
  }
  for (const std::size_t step : {1, 2, 63, 64, 65, 127, 1000, 100'000})
    for (const std::size_t staging : {64, 100, 4096}) {
      Keeper keeper;
      FrameReader reader(keeper, staging);
      EXPECT_EQ(feed(reader, stream, step), FrameReader::State::kMore);
      EXPECT_TRUE(reader.between_frames());
      ASSERT_EQ(keeper.whole, std::size(payloads)) << step << " " << staging;
      for (std::size_t i = 0; i < std::size(payloads); ++i) {
        EXPECT_EQ(keeper.frames[i].header.request, i);
        EXPECT_TRUE(keeper.frames[i].intact);
        ASSERT_EQ(keeper.frames[i].payload.size(), payloads[i]);
        for (std::size_t k = 0; k < payloads[i]; ++k)
          ASSERT_EQ(keeper.frames[i].payload[k], static_cast<std::byte>(i + k));
      }
    }
}

TEST(FrameReader, TruncatedAtEveryByteThereIsNoFrame) {
  const auto bytes = frame(1, 100);
  for (std::size_t length = 1; length < bytes.size(); ++length) {
    Keeper keeper;
    FrameReader reader(keeper, 128);
    EXPECT_EQ(feed(reader, std::span(bytes).first(length), 1000), FrameReader::State::kMore);
    EXPECT_EQ(keeper.whole, 0u);
    EXPECT_FALSE(reader.between_frames());
  }
}

TEST(FrameReader, LargePayloadIsReceivedIntoItsPlace) {
  Keeper keeper;
  FrameReader reader(keeper, 256);
  const auto bytes = frame(1, 4096);
  feed(reader, std::span(bytes).first(kHeaderBytes), 1000);
  const auto space = reader.receive_space();
  ASSERT_EQ(space.size(), 2u);
  EXPECT_EQ(space[0].iov_base, keeper.frames[0].payload.data());
  EXPECT_EQ(space[0].iov_len, 4096u);
}

// Payloads of 1000 bytes go aside; the others are kept.
struct Splitter final : FrameReader::Sink {
  Keeper keeper;
  std::size_t aside = 0;
  bool intact = false;
  FrameReader::Next on_header(const Header& header, std::span<std::byte>& place) override {
    return header.payload == 1000 ? FrameReader::Next::kAside : keeper.on_header(header, place);
  }
  FrameReader::Next on_frame(const Header& header, bool whole) override {
    if (header.payload != 1000) return keeper.on_frame(header, whole);
    ++aside;
    intact = whole;
    return FrameReader::Next::kGoOn;
  }
};

TEST(FrameReader, PayloadThatGoesAsideIsNeverReceivedHere) {
  std::vector<std::byte> stream;
  const std::size_t payloads[] = {1000, 0, 1000, 1000, 200, 1000, 64};
  for (std::size_t i = 0; i < std::size(payloads); ++i) {
    const auto bytes = frame(i, payloads[i]);
    stream.insert(stream.end(), bytes.begin(), bytes.end());
  }
  Splitter splitter;
  FrameReader reader(splitter, 256);
  reader.set_header_only(true);
  std::span<const std::byte> left(stream);
  std::vector<std::byte> taken;
  FrameReader::State state = FrameReader::State::kMore;
  while (!left.empty()) {
    if (state == FrameReader::State::kAside) {
      EXPECT_FALSE(reader.between_frames());
      const std::size_t count = std::min<std::size_t>(300, reader.aside());
      taken.insert(taken.end(), left.begin(), left.begin() + static_cast<std::ptrdiff_t>(count));
      left = left.subspan(count);
      reader.took(count);
      if (reader.aside() == 0) state = reader.aside_done(taken.size() != 2000);
      continue;
    }
    ASSERT_EQ(state, FrameReader::State::kMore);
    std::size_t moved = 0;
    for (const iovec& space : reader.receive_space()) {
      const std::size_t count = std::min(space.iov_len, left.size());
      std::memcpy(space.iov_base, left.data(), count);
      left = left.subspan(count);
      moved += count;
    }
    state = reader.received(moved);
    if (taken.size() == 2000) {
      EXPECT_FALSE(splitter.intact);
    }
  }
  EXPECT_EQ(splitter.aside, 4u);
  EXPECT_TRUE(splitter.intact);
  EXPECT_EQ(splitter.keeper.whole, 3u);
  ASSERT_EQ(taken.size(), 4000u);
  for (const auto& [number, at] : {std::pair{0, 0}, {2, 1000}, {3, 2000}, {5, 3000}})
    for (int i = 0; i < 1000; ++i)
      ASSERT_EQ(taken[static_cast<std::size_t>(at + i)], static_cast<std::byte>(number + i));
  EXPECT_TRUE(reader.between_frames());
}

// Who receives more than headers cannot have asked for it.
TEST(FrameReader, PayloadThatGoesAsideAndIsHereAlreadyIsRefused) {
  Splitter splitter;
  FrameReader reader(splitter, 256);
  EXPECT_EQ(feed(reader, frame(1, 1000), 100'000), FrameReader::State::kBroken);
  EXPECT_EQ(splitter.aside, 0u);
}

TEST(FrameReader, OversizedPayloadIsRefusedBeforeAnyOfItIsTaken) {
  Keeper keeper;
  FrameReader reader(keeper, 256);
  const auto bytes = frame(1, kMaxPayloadBeforeOpen + 1);
  EXPECT_EQ(feed(reader, bytes, kHeaderBytes), FrameReader::State::kBroken);
  EXPECT_EQ(reader.error(), error::kMessageSize);
  EXPECT_TRUE(keeper.frames.empty());
}

TEST(FrameReader, GarbageIsRefusedAtItsFirstByte) {
  Keeper keeper;
  FrameReader reader(keeper, 256);
  const std::byte x{'x'};
  EXPECT_EQ(feed(reader, {&x, 1}, 1), FrameReader::State::kBroken);
  EXPECT_EQ(reader.error(), error::kProtocol);
}

TEST(FrameReader, GarbageBehindAFrameIsRefused) {
  auto bytes = frame(1, 10);
  bytes.push_back(std::byte{'x'});
  Keeper keeper;
  FrameReader reader(keeper, 256);
  EXPECT_EQ(feed(reader, bytes, 1000), FrameReader::State::kBroken);
  EXPECT_EQ(keeper.whole, 1u);
}

TEST(FrameReader, DamagedPayloadIsTold) {
  auto bytes = frame(1, 1000, true);
  bytes[500] ^= std::byte{1};
  Keeper keeper;
  FrameReader reader(keeper, 256);
  EXPECT_EQ(feed(reader, bytes, 1000), FrameReader::State::kMore);
  ASSERT_EQ(keeper.whole, 1u);
  EXPECT_FALSE(keeper.frames[0].intact);
}

TEST(FrameReader, PausesBetweenFramesAndResumes) {
  std::vector<std::byte> stream;
  for (std::uint64_t i = 0; i < 3; ++i) {
    const auto bytes = frame(i, 10);
    stream.insert(stream.end(), bytes.begin(), bytes.end());
  }
  Keeper keeper;
  keeper.on_frames = FrameReader::Next::kPause;
  FrameReader reader(keeper, 1024);
  EXPECT_EQ(feed(reader, stream, 1000), FrameReader::State::kPaused);
  EXPECT_EQ(keeper.whole, 1u);
  EXPECT_EQ(reader.resume(), FrameReader::State::kPaused);
  EXPECT_EQ(keeper.whole, 2u);
  EXPECT_EQ(reader.resume(), FrameReader::State::kPaused);
  EXPECT_EQ(keeper.whole, 3u);
  EXPECT_EQ(reader.resume(), FrameReader::State::kMore);
}

TEST(FrameReader, AMessageComesBetweenTheBytesOfAFrame) {
  Keeper keeper;
  FrameReader reader(keeper, 256);
  const auto slow = frame(1, 1000, true), quick = frame(2, 500, true);
  EXPECT_EQ(feed(reader, std::span(slow).first(700), 100), FrameReader::State::kMore);
  // The keeper has no more than one place; a reader's owner puts his aside.
  const auto begun = std::move(keeper.frames.back());
  keeper.frames.pop_back();
  EXPECT_EQ(reader.message(quick), FrameReader::State::kMore);
  ASSERT_EQ(keeper.whole, 1u);
  EXPECT_EQ(keeper.frames.back().header.request, 2u);
  EXPECT_TRUE(keeper.frames.back().intact);
  EXPECT_TRUE(std::ranges::equal(keeper.frames.back().payload, std::span(quick).subspan(64)));
  EXPECT_EQ(feed(reader, std::span(slow).subspan(700), 100), FrameReader::State::kMore);
  EXPECT_EQ(keeper.whole, 2u);
  EXPECT_TRUE(std::ranges::equal(begun.payload, std::span(slow).subspan(64)));
}

TEST(FrameReader, AMessageThatIsNotOneFrameIsRefused) {
  auto longer = frame(1, 100);
  longer.push_back({});
  auto damaged = frame(1, 100);
  damaged[20] ^= std::byte{1};
  for (const auto& message :
       {std::vector<std::byte>{}, std::vector<std::byte>(63), std::vector<std::byte>(64),
        std::vector<std::byte>(longer.begin(), longer.end() - 2), longer, damaged}) {
    Keeper keeper;
    FrameReader reader(keeper, 256);
    EXPECT_EQ(reader.message(message), FrameReader::State::kBroken);
    EXPECT_TRUE(keeper.frames.empty());
    EXPECT_FALSE(reader.problem().empty());
  }
}

TEST(FrameReader, AMessageThatPausesLeavesTheStreamAlone) {
  Keeper keeper;
  FrameReader reader(keeper, 256);
  keeper.on_frames = FrameReader::Next::kPause;
  EXPECT_EQ(reader.message(frame(1, 10)), FrameReader::State::kPaused);
  keeper.on_frames = FrameReader::Next::kGoOn;
  EXPECT_EQ(reader.resume(), FrameReader::State::kMore);
  EXPECT_EQ(feed(reader, frame(2, 10), 100), FrameReader::State::kMore);
  EXPECT_EQ(keeper.whole, 2u);
}

TEST(FrameReader, StopsWhenTheSinkRefusesAHeader) {
  Keeper keeper;
  keeper.on_headers = FrameReader::Next::kStop;
  FrameReader reader(keeper, 1024);
  EXPECT_EQ(feed(reader, frame(1, 10), 1000), FrameReader::State::kStopped);
  EXPECT_EQ(keeper.whole, 0u);
}

TEST(FrameReader, MutatedStreamsNeverOverrun) {
  // With the sanitizers this is a small fuzz test; the header checksum would
  // stop nearly all, so it is made to fit half of the time.
  std::mt19937 random(13);
  for (int round = 0; round < 3000; ++round) {
    auto bytes = frame(1, random() % 300, false);
    const auto more = frame(2, random() % 300, false);
    bytes.insert(bytes.end(), more.begin(), more.end());
    for (unsigned flips = 1 + random() % 4; flips > 0; --flips)
      bytes[random() % bytes.size()] ^= static_cast<std::byte>(1 + random() % 255);
    if (round % 2) {
      const std::uint32_t crc = crc32c(std::span(bytes).first<60>());
      std::memcpy(bytes.data() + 60, &crc, sizeof crc);
    }
    Keeper keeper;
    FrameReader reader(keeper, 64 + random() % 200);
    feed(reader, bytes, 1 + random() % 100);
  }
}

}  // namespace
}  // namespace rmem::wire
