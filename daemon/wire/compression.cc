// SPDX-License-Identifier: MIT
#include "wire/compression.hh"

#include <lz4.h>
#include <zstd.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "wire/messages.hh"

namespace rmem::wire {

namespace {

using namespace std::chrono_literals;

// The fastest: links that are slower than this are slower than its output, too.
constexpr int kZstdLevel = 1;

// A window is long enough to mean something, and over soon on a slow link.
constexpr std::size_t kWindow = 512 << 10;
constexpr std::size_t kLeastWindow = 64 << 10;
constexpr Compressor::Clock::duration kWindowTime = 100ms;
// A trial that fails costs its window: one of so many, and fewer each time.
constexpr unsigned kFirstPatience = 4;
constexpr unsigned kLastPatience = 256;
// Of the windows until the next trial, so many fewer (a sixteenth) for each without a wait.
constexpr unsigned kHaste = 16;
// A codec has to be so much faster, since its bytes take a copy and a CPU at either side;
// what goes as it is may be that much slower.
constexpr double kGain = 1.1;
constexpr double kEnough = 0.95;

struct ZstdContexts {
  ZSTD_CCtx* compress = ZSTD_createCCtx();
  ZSTD_DCtx* decompress = ZSTD_createDCtx();
  ~ZstdContexts() {
    ZSTD_freeCCtx(compress);
    ZSTD_freeDCtx(decompress);
  }
};
// They are large, and make nothing of what they did before; so all share them.
ZstdContexts& zstd() {
  thread_local ZstdContexts contexts;
  return contexts;
}

std::span<std::byte> scratch(std::size_t bytes) {
  thread_local const auto all = std::make_unique_for_overwrite<std::byte[]>(kCompressMax);
  return {all.get(), bytes};
}

}  // namespace

std::uint64_t codec_feature(Codec codec) {
  switch (codec) {
    case Codec::kLz4:
      return feature::kLz4;
    case Codec::kZstd:
      return feature::kZstd;
    case Codec::kNone:
      break;
  }
  return 0;
}

std::uint16_t codec_flag(Codec codec) {
  switch (codec) {
    case Codec::kLz4:
      return flag::kLz4;
    case Codec::kZstd:
      return flag::kZstd;
    case Codec::kNone:
      break;
  }
  return 0;
}

Codec codec_of(std::uint16_t flags) {
  if (flags & flag::kLz4) return Codec::kLz4;
  return flags & flag::kZstd ? Codec::kZstd : Codec::kNone;
}

std::size_t compress(Codec codec, std::span<const std::byte> from, std::span<std::byte> into) {
  if (codec == Codec::kLz4) {
    const int bytes = LZ4_compress_default(
        reinterpret_cast<const char*>(from.data()), reinterpret_cast<char*>(into.data()),
        static_cast<int>(from.size()), static_cast<int>(into.size()));
    return static_cast<std::size_t>(std::max(bytes, 0));
  }
  ZSTD_CCtx* const context = zstd().compress;
  if (codec != Codec::kZstd || context == nullptr) return 0;
  const std::size_t bytes =
      ZSTD_compressCCtx(context, into.data(), into.size(), from.data(), from.size(), kZstdLevel);
  return ZSTD_isError(bytes) ? 0 : bytes;
}

bool decompress(Codec codec, std::span<const std::byte> from, std::span<std::byte> into) {
  if (codec == Codec::kLz4) {
    const int bytes = LZ4_decompress_safe(
        reinterpret_cast<const char*>(from.data()), reinterpret_cast<char*>(into.data()),
        static_cast<int>(from.size()), static_cast<int>(into.size()));
    return bytes >= 0 && static_cast<std::size_t>(bytes) == into.size();
  }
  ZSTD_DCtx* const context = zstd().decompress;
  if (codec != Codec::kZstd || context == nullptr) return false;
  const std::size_t bytes =
      ZSTD_decompressDCtx(context, into.data(), into.size(), from.data(), from.size());
  return !ZSTD_isError(bytes) && bytes == into.size();
}

Compressor::Compressor(std::uint64_t features, std::function<Clock::time_point()> now)
    : now_(std::move(now)), features_(features), patience_(kFirstPatience), until_trial_(1) {}

Compressor::Offer Compressor::offer(std::span<const std::byte> payload) {
  look();
  busy_ = true;
  Offer offer;
  offer.tag = tag_;
  if (plain() || payload.size() < kCompressMin || payload.size() > kCompressMax) return offer;
  // What saves less than a sixteenth is not worth the other side's trouble.
  const std::span<std::byte> into = scratch(payload.size() - payload.size() / 16);
  const std::size_t bytes = compress(in_use_, payload, into);
  if (bytes == 0) return offer;
  offer.codec = in_use_;
  offer.bytes = into.first(bytes);
  return offer;
}

Compressor::Offer Compressor::offer_plain() {
  look();
  busy_ = true;
  Offer offer;
  offer.tag = plain() ? tag_ : 0;
  return offer;
}

// Accounts for the time until now.
void Compressor::look() {
  const auto now = now_();
  if (busy_) time_ += now - since_;
  if (std::exchange(waiting_, false)) waited_ += now - since_;
  since_ = now;
}

void Compressor::sent(std::size_t bytes, std::uint32_t tag) {
  look();
  if (tag != tag_) return new_window();  // of the codec before this one
  bytes_ += bytes;
  if (bytes_ < kLeastWindow || (bytes_ < kWindow && time_ < kWindowTime)) return;
  window_over(std::chrono::duration<double>(time_).count() / static_cast<double>(bytes_));
  new_window();
}

void Compressor::new_window() {
  bytes_ = 0;
  time_ = waited_ = {};
}

void Compressor::pause(bool more) {
  look();
  waiting_ = more;
  if (!more) busy_ = false;
}

void Compressor::window_over(double measured) {
  if (in_use_ != best_) {
    const bool better = measured * (plain() ? kEnough : kGain) < cost_;
    if (better) {
      best_ = in_use_;
      cost_ = measured;
    }
    patience_ = better ? kFirstPatience : std::min(2 * patience_, kLastPatience);
    until_trial_ = patience_;
    return use(best_);
  }
  if (until_trial_ > 0) --until_trial_;
  const bool waits = 2 * waited_ > time_;
  if (plain() && !waits) return;  // what buffers took in at once; nothing to gain there
  cost_ = cost_ > 0 ? (cost_ + measured) / 2 : measured;
  // A link that has become a faster one should be found out sooner.
  if (!waits) until_trial_ -= until_trial_ / kHaste;
  if (until_trial_ == 0) use(next_to_try());
}

void Compressor::use(Codec codec) {
  if (codec == in_use_) return;
  in_use_ = codec;
  if (++tag_ == 0) tag_ = 1;
}

Codec Compressor::next_to_try() {
  for (std::size_t i = 1; i <= kCodecs; ++i) {
    const auto codec = static_cast<Codec>((static_cast<std::size_t>(tried_) + i) % kCodecs);
    if (codec == best_ || (codec != Codec::kNone && !(features_ & codec_feature(codec)))) continue;
    return tried_ = codec;
  }
  return best_;
}

}  // namespace rmem::wire
