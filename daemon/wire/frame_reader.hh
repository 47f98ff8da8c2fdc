// SPDX-License-Identifier: MIT
// Cuts a stream of received bytes into frames; payloads go where their owner
// wants them, without a detour.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "wire/codec.hh"

namespace rmem::wire {

// Sans-IO: receive_space() says where the next bytes of the stream belong,
// received() that they are there. Headers and small payloads pass through a
// staging buffer, so that one receive brings many of them; the rest of a large
// payload is received directly into its place.
class FrameReader {
 public:
  enum class Next { kGoOn, kAside, kPause, kStop };

  // Gets the frames. Must not destroy the reader from within a call.
  class Sink {
   public:
    // A well-formed header within the limits. Sets `place`, if there is payload,
    // to exactly header.payload bytes that stay valid until on_frame() or the
    // reader's end. kAside: the payload, which there must be, is the business
    // of the reader's owner, who has set_header_only(). kStop refuses the frame.
    virtual Next on_header(const Header& header, std::span<std::byte>& place) = 0;
    // All of the payload is in its place. `intact` is false if it carries a
    // checksum and does not match it. kPause: resume() brings the next one.
    virtual Next on_frame(const Header& header, bool intact) = 0;

   protected:
    ~Sink() = default;
  };

  enum class State {
    kMore,     // wants more bytes
    kAside,    // the next bytes are a payload that the owner takes by himself
    kPaused,   // the sink said so
    kStopped,  // the sink said so; nothing more comes
    kBroken,   // flaw() or an oversized payload; nothing more comes
  };

  // `staging_bytes` >= kHeaderBytes.
  FrameReader(Sink& sink, std::size_t staging_bytes);

  // What later frames have to keep to; kHelloVersion and kMaxPayloadBeforeOpen
  // at first.
  void set_version(std::uint8_t version) { version_ = version; }
  void set_max_payload(std::uint32_t bytes) { max_payload_ = bytes; }

  // Where the next bytes go: one or two buffers, never empty. In state kMore.
  std::span<const iovec> receive_space();
  // The first `bytes` of that space have been filled.
  State received(std::size_t bytes);
  // After kPause.
  State resume();

  // A message that has come beside the stream, whose state it leaves alone, and has to be one
  // frame. Both calls of the sink are made before this returns; it must not put payloads aside.
  // kMore: all is well.
  State message(std::span<const std::byte> bytes);

  // In state kAside, else 0: so much of the payload is still to come.
  std::size_t aside() const { return payload_left_; }
  // So many bytes of it have been taken.
  void took(std::size_t bytes);
  // There is nothing left of it. `intact` is for on_frame().
  State aside_done(bool intact);

  // Whether to receive no byte behind a header before it has been seen: what
  // follows may go aside. Many small frames take many calls that way.
  void set_header_only(bool on) { header_only_ = on; }

  // Why it is broken: the number and the sentence for REFUSE.
  std::uint32_t error() const { return error_; }
  const std::string& problem() const { return problem_; }
  // The frame that is being read or was read last.
  const Header& header() const { return header_; }
  // Whether the stream, if it ended now, would end between two frames.
  bool between_frames() const { return !in_payload_ && state_ != State::kAside && begin_ == end_; }

 private:
  State process();
  State finish_frame();
  static bool intact(const Header& header, std::span<const std::byte> payload);
  State end_frame(const Header& header, bool intact);
  State broken(std::uint32_t error, std::string problem);

  Sink& sink_;
  std::uint8_t version_ = kHelloVersion;
  std::uint32_t max_payload_ = kMaxPayloadBeforeOpen;

  const std::size_t staging_bytes_;
  std::unique_ptr<std::byte[]> staging_;
  std::size_t begin_ = 0;  // staged and not yet used: [begin_, end_)
  std::size_t end_ = 0;

  bool in_payload_ = false;
  Header header_;
  std::span<std::byte> payload_;  // of header_
  std::size_t filled_ = 0;        // bytes of it that have arrived
  std::size_t payload_left_ = 0;  // of one that goes aside
  bool header_only_ = false;
  std::array<iovec, 2> space_;

  State state_ = State::kMore;
  std::uint32_t error_ = 0;
  std::string problem_;
};

}  // namespace rmem::wire
