// SPDX-License-Identifier: MIT
#include "wire/frame_reader.hh"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "base/crc32c.hh"

namespace rmem::wire {

FrameReader::FrameReader(Sink& sink, std::size_t staging_bytes)
    : sink_(sink),
      staging_bytes_(staging_bytes),
      staging_(std::make_unique_for_overwrite<std::byte[]>(staging_bytes)) {
  assert(staging_bytes >= kHeaderBytes);
}

std::span<const iovec> FrameReader::receive_space() {
  assert(state_ == State::kMore);
  if (begin_ == end_) {
    begin_ = end_ = 0;
  } else if (begin_ > 0 && staging_bytes_ - begin_ < kHeaderBytes) {
    std::memmove(staging_.get(), staging_.get() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  std::size_t count = 0;
  if (in_payload_) space_[count++] = {payload_.data() + filled_, payload_.size() - filled_};
  const std::size_t room = header_only_ ? kHeaderBytes - (end_ - begin_) : staging_bytes_ - end_;
  space_[count++] = {staging_.get() + end_, room};
  return std::span(space_).first(count);
}

FrameReader::State FrameReader::received(std::size_t bytes) {
  if (in_payload_) {
    const std::size_t direct = std::min(bytes, payload_.size() - filled_);
    filled_ += direct;
    bytes -= direct;
  }
  end_ += bytes;
  assert(end_ <= staging_bytes_);
  return process();
}

FrameReader::State FrameReader::resume() {
  if (state_ != State::kPaused) return state_;
  state_ = State::kMore;
  return process();
}

void FrameReader::took(std::size_t bytes) {
  assert(state_ == State::kAside && bytes <= payload_left_);
  payload_left_ -= bytes;
}

FrameReader::State FrameReader::aside_done(bool intact) {
  assert(state_ == State::kAside && payload_left_ == 0);
  state_ = end_frame(header_, intact);
  return process();
}

FrameReader::State FrameReader::process() {
  while (state_ == State::kMore) {
    if (in_payload_) {
      const std::size_t staged = std::min(end_ - begin_, payload_.size() - filled_);
      std::memcpy(payload_.data() + filled_, staging_.get() + begin_, staged);
      begin_ += staged;
      filled_ += staged;
      if (filled_ < payload_.size()) return state_;
      state_ = finish_frame();
      continue;
    }

    const std::span<const std::byte> staged(staging_.get() + begin_, end_ - begin_);
    if (const Flaw flaw = glance(staged); flaw != Flaw::kNone)
      return broken(flaw_error(flaw), std::string(flaw_text(flaw)));
    if (staged.size() < kHeaderBytes) return state_;
    if (const Flaw flaw = decode(staged.first<kHeaderBytes>(), version_, header_);
        flaw != Flaw::kNone)
      return broken(flaw_error(flaw), std::string(flaw_text(flaw)));
    if (header_.payload > max_payload_)
      return broken(error::kMessageSize, "a payload of " + std::to_string(header_.payload) +
                                             " bytes, where " + std::to_string(max_payload_) +
                                             " are allowed");
    begin_ += kHeaderBytes;

    payload_ = {};
    filled_ = 0;
    const Next next = sink_.on_header(header_, payload_);
    if (next == Next::kAside) {
      assert(header_.payload > 0);
      // It was received before the owner can have asked for it.
      if (begin_ != end_) return broken(error::kProtocol, "a payload out of the blue");
      payload_left_ = header_.payload;
      return state_ = State::kAside;
    }
    if (next != Next::kGoOn) return state_ = State::kStopped;
    assert(payload_.size() == header_.payload);
    if (header_.payload == 0)
      state_ = finish_frame();
    else
      in_payload_ = true;
  }
  return state_;
}

FrameReader::State FrameReader::message(std::span<const std::byte> bytes) {
  if (bytes.size() < kHeaderBytes) return broken(error::kProtocol, "a message without a frame");
  Header header;
  if (const Flaw flaw = decode(bytes.first<kHeaderBytes>(), version_, header); flaw != Flaw::kNone)
    return broken(flaw_error(flaw), std::string(flaw_text(flaw)));
  const auto payload = bytes.subspan(kHeaderBytes);
  if (header.payload != payload.size() || header.payload > max_payload_)
    return broken(error::kMessageSize, "a message of " + std::to_string(bytes.size()) +
                                           " bytes, with a payload of " +
                                           std::to_string(header.payload));
  std::span<std::byte> place;
  if (sink_.on_header(header, place) != Next::kGoOn) return state_ = State::kStopped;
  assert(place.size() == payload.size());
  std::ranges::copy(payload, place.begin());
  const State after = end_frame(header, intact(header, place));
  return after == State::kStopped ? state_ = after : after;
}

bool FrameReader::intact(const Header& header, std::span<const std::byte> payload) {
  return !(header.flags & flag::kChecksum) || crc32c(payload) == header.checksum;
}

FrameReader::State FrameReader::finish_frame() {
  in_payload_ = false;
  return end_frame(header_, intact(header_, payload_));
}

FrameReader::State FrameReader::end_frame(const Header& header, bool intact) {
  switch (sink_.on_frame(header, intact)) {
    case Next::kGoOn:
      return State::kMore;
    case Next::kPause:
      return State::kPaused;
    case Next::kAside:
    case Next::kStop:
      break;
  }
  return State::kStopped;
}

FrameReader::State FrameReader::broken(std::uint32_t error, std::string problem) {
  error_ = error;
  problem_ = std::move(problem);
  return state_ = State::kBroken;
}

}  // namespace rmem::wire
