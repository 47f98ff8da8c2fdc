// SPDX-License-Identifier: MIT
// Payloads made shorter, by lz4 or zstd, and only while that makes a connection faster.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

namespace rmem::wire {

enum class Codec : std::uint8_t { kNone, kLz4, kZstd };
inline constexpr std::size_t kCodecs = 3;

// As HELLO's features and a frame's flags have them; kNone is 0.
std::uint64_t codec_feature(Codec codec);
std::uint16_t codec_flag(Codec codec);
// Of a frame that codec.hh has decoded: at most one of them.
Codec codec_of(std::uint16_t flags);

// What is shorter is left as it is. What is longer would hold up others for too long.
inline constexpr std::size_t kCompressMin = 4 << 10;
inline constexpr std::size_t kCompressMax = 1 << 20;

// The bytes that `from` has become at the front of `into`; 0: they do not fit.
std::size_t compress(Codec codec, std::span<const std::byte> from, std::span<std::byte> into);
// Whether `from`, which anybody may have made, makes exactly `into`, whose bytes are
// anything otherwise.
bool decompress(Codec codec, std::span<const std::byte> from, std::span<std::byte> into);

// One direction of a connection. How many bytes of payloads leave per second, of those in
// which there is something to send, is measured, as they are and with each codec, in
// windows of some hundred KiB; the fastest is used, and now and then another one is tried.
// That takes account of whatever limits the connection (the link, the peer, this CPU) and
// of what the payloads are. Where the socket is not what there is to wait for nothing is tried.
//
// Not thread-safe.
class Compressor {
 public:
  using Clock = std::chrono::steady_clock;

  // `features`: the codecs that both sides want.
  explicit Compressor(std::uint64_t features, std::function<Clock::time_point()> now = Clock::now);

  // How a payload goes: as `bytes`, which are valid until the next call of any on this thread,
  // or, with kNone, as it is; and what to tell sent().
  struct Offer {
    Codec codec = Codec::kNone;
    std::span<const std::byte> bytes;
    std::uint32_t tag = 0;
  };
  // It is the next one to be sent.
  Offer offer(std::span<const std::byte> payload);
  // Of one that goes as it is, whatever is in use.
  Offer offer_plain();
  // Whether the next payload would go as it is.
  bool plain() const { return in_use_ == Codec::kNone; }

  // A payload of so many bytes, before compression, has been sent.
  void sent(std::size_t bytes, std::uint32_t tag);
  // Nothing is sent for a while: there is no `more`, or not before the socket can be written
  // again.
  void pause(bool more);

 private:
  void look();
  void new_window();
  void window_over(double cost);
  void use(Codec codec);
  Codec next_to_try();

  const std::function<Clock::time_point()> now_;
  const std::uint64_t features_;
  Codec in_use_ = Codec::kNone;
  Codec best_ = Codec::kNone;   // so far; else a trial is under way
  double cost_ = 0;             // of that, seconds per byte; 0: not known
  Codec tried_ = Codec::kNone;  // last
  std::uint32_t tag_ = 1;       // of what is offered now
  unsigned patience_;           // windows between two trials,
  unsigned until_trial_;        // and left of them

  // This window: what was sent of this tag, in how much time.
  std::size_t bytes_ = 0;
  Clock::duration time_{};
  Clock::duration waited_{};
  bool busy_ = false;
  bool waiting_ = false;
  Clock::time_point since_;  // when busy: accounted for until then
};

}  // namespace rmem::wire
