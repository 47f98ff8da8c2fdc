// SPDX-License-Identifier: MIT
// Frames to spoil: cut, damage, repeat, exchange, or lie in one of them. What is
// spoilt depends on the seed alone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <span>
#include <vector>

#include "base/bytes.hh"
#include "base/crc32c.hh"
#include "support/slowness.hh"
#include "wire/codec.hh"

namespace rmem::test {

using Bytes = std::vector<std::byte>;

inline std::uint64_t seed_of_run() {
  const char* const text = std::getenv("RMEM_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 1;
}

inline void append(Bytes& to, std::span<const std::byte> bytes) {
  to.insert(to.end(), bytes.begin(), bytes.end());
}

// The stream of one side, frame by frame.
inline std::vector<Bytes> frames_of(std::span<const std::byte> stream) {
  std::vector<Bytes> frames;
  while (stream.size() >= wire::kHeaderBytes) {
    const std::size_t length =
        wire::kHeaderBytes + load_le<std::uint32_t>(&stream[wire::header_at::kPayload]);
    if (length > stream.size()) break;
    frames.emplace_back(stream.begin(), stream.begin() + static_cast<std::ptrdiff_t>(length));
    stream = stream.subspan(length);
  }
  return frames;
}

class Spoiler {
 public:
  explicit Spoiler(std::uint64_t seed) : random_(seed) {}

  std::uint64_t below(std::uint64_t n) { return random_() % n; }

  // A header that says something else, with a checksum that fits.
  void lie(Bytes& frame) {
    static constexpr std::pair<std::size_t, std::size_t> kFields[] = {
        {4, 1},  {5, 1},  {6, 2},  {8, 8},  {16, 4}, {20, 4},
        {24, 8}, {32, 8}, {40, 4}, {44, 4}, {48, 8}, {56, 4}};
    const auto [at, length] = kFields[below(std::size(kFields))];
    static constexpr std::uint64_t kValues[] = {0, 1, 2, 0x7f, 0xff, 0xfff, 0xffffffff, ~0ull};
    std::uint64_t value = 0;
    std::memcpy(&value, &frame[at], length);
    value =
        below(2) != 0 ? kValues[below(std::size(kValues))] : value ^ (1ull << below(length * 8));
    std::memcpy(&frame[at], &value, length);
    sign(frame);
  }
  static void sign(Bytes& frame) {
    const std::span<const std::byte> header(frame.data(), wire::header_at::kHeaderChecksum);
    store_le(&frame[wire::header_at::kHeaderChecksum], crc32c(header));
  }

  // One mistake somewhere in them; as a stream. A frame that is cut keeps `least` bytes.
  Bytes spoil(std::vector<Bytes> frames, std::size_t least = 0) {
    const std::size_t which = below(frames.size());
    Bytes& frame = frames[which];
    Bytes garbage(below(200));
    for (std::byte& byte : garbage) byte = static_cast<std::byte>(random_());
    switch (below(8)) {
      case 0:
        lie(frame);
        break;
      case 1:
        frame[below(frame.size())] ^= static_cast<std::byte>(1 << below(8));
        break;
      case 2:
        frame.resize(least + below(frame.size() - least));  // the next one begins too early
        break;
      case 3:
        frames.insert(frames.begin() + static_cast<std::ptrdiff_t>(which), frame);
        break;
      case 4:
        std::swap(frame, frames[below(frames.size())]);
        break;
      case 5:
        append(frame, garbage);
        break;
      case 6:
        frame.insert(frame.begin(), garbage.begin(), garbage.end());
        break;
      default:
        for (int i = 0; i < 3; ++i) lie(frame);
    }
    Bytes stream;
    for (const Bytes& one : frames) append(stream, one);
    return stream;
  }

 private:
  std::mt19937_64 random_;
};

}  // namespace rmem::test
