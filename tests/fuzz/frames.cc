// SPDX-License-Identifier: MIT
// Bytes to frames: the reader sees the same frames however the stream is cut, puts
// payloads where they belong and nowhere else, and what was read is written back byte
// by byte.
#include <algorithm>
#include <memory>
#include <vector>

#include "base/bytes.hh"
#include "base/crc32c.hh"
#include "fuzz/fuzz.hh"
#include "wire/codec.hh"
#include "wire/frame_reader.hh"

namespace {

using namespace rmem;
using wire::FrameReader;

struct Seen {
  std::vector<std::byte> stream;  // of all whole frames, written again
  std::size_t frames = 0;
  FrameReader::State state{};
  std::uint32_t error = 0;
  bool operator==(const Seen&) const = default;
};

class Sink final : public FrameReader::Sink {
 public:
  explicit Sink(Seen& seen) : seen_(seen) {}
  FrameReader::Next on_header(const wire::Header& header, std::span<std::byte>& place) override {
    FUZZ_CHECK(header.payload <= wire::kMaxPayloadBeforeOpen);
    payload_ = std::make_unique<std::byte[]>(header.payload);  // to the byte, for ASan
    place = {payload_.get(), header.payload};
    return FrameReader::Next::kGoOn;
  }
  FrameReader::Next on_frame(const wire::Header& header, bool intact) override {
    const std::span<const std::byte> payload(payload_.get(), header.payload);
    FUZZ_CHECK(intact ==
               (!(header.flags & wire::flag::kChecksum) || crc32c(payload) == header.checksum));
    wire::HeaderBytes bytes;
    wire::encode(header, bytes);
    seen_.stream.insert(seen_.stream.end(), bytes.begin(), bytes.end());
    seen_.stream.insert(seen_.stream.end(), payload.begin(), payload.end());
    ++seen_.frames;
    FUZZ_CHECK(wire::type_name(header.type).size() < 16);
    return header.request % 7 == 3 ? FrameReader::Next::kPause : FrameReader::Next::kGoOn;
  }

 private:
  Seen& seen_;
  std::unique_ptr<std::byte[]> payload_;
};

// In pieces of at most `piece` bytes.
Seen read(std::span<const std::byte> stream, std::size_t piece, bool header_only) {
  Seen seen;
  Sink sink(seen);
  FrameReader reader(sink, 256);
  reader.set_header_only(header_only);
  seen.state = FrameReader::State::kMore;
  while (!stream.empty() && seen.state == FrameReader::State::kMore) {
    std::size_t put = 0;
    for (const iovec& space : reader.receive_space()) {
      const std::size_t count = std::min({space.iov_len, stream.size(), piece - put});
      if (count != 0) std::memcpy(space.iov_base, stream.data(), count);
      stream = stream.subspan(count);
      put += count;
    }
    FUZZ_CHECK(put > 0);
    seen.state = reader.received(put);
    while (seen.state == FrameReader::State::kPaused) seen.state = reader.resume();
  }
  seen.error = reader.error();
  if (seen.state == FrameReader::State::kBroken) FUZZ_CHECK(!reader.problem().empty());
  return seen;
}

void payloads(std::span<const std::byte> input) {
  if (const auto hello = wire::decode_hello(input)) {
    wire::Hello shorter = *hello;
    shorter.name.resize(std::min<std::size_t>(shorter.name.size(), 128));
    const auto again = wire::decode_hello(wire::encode(*hello));
    FUZZ_CHECK(again && *again == shorter);
  }
  if (const auto opened = wire::decode_opened(input)) {
    const auto bytes = wire::encode(*opened);
    const auto again = wire::decode_opened(bytes);
    FUZZ_CHECK(again && *again == *opened);
    FUZZ_CHECK(std::equal(bytes.begin(), bytes.begin() + 24, input.begin()));
  }
  const std::string clean = wire::clean_text(input);
  FUZZ_CHECK(clean.size() <= wire::kMaxErrorText);
  FUZZ_CHECK(std::all_of(clean.begin(), clean.end(), [](char c) { return c >= 0x20 && c < 0x7f; }));
}

}  // namespace

FUZZ_TARGET(frames) {
  payloads(input);

  // The first byte tells how to cut the stream, and whether its headers shall have
  // right checksums, which no chance finds.
  fuzz::Input in(input);
  const auto how = in.number<std::uint8_t>();
  const auto given = in.rest();
  std::vector<std::byte> stream(given.begin(), given.end());
  if (how & 1) {
    for (std::size_t at = 0; at + wire::kHeaderBytes <= stream.size();) {
      const auto header = std::span(stream).subspan(at, wire::kHeaderBytes);
      store_le(header.data(), wire::kMagic);
      store_le(&header[wire::header_at::kHeaderChecksum],
               crc32c(header.first(wire::header_at::kHeaderChecksum)));
      at += wire::kHeaderBytes + load_le<std::uint32_t>(&header[wire::header_at::kPayload]) % 8192;
    }
  }
  const Seen whole = read(stream, stream.size() + 1, false);
  FUZZ_CHECK(whole.stream.size() <= stream.size());
  FUZZ_CHECK(std::equal(whole.stream.begin(), whole.stream.end(), stream.begin()));
  const Seen pieces = read(stream, 1 + how / 2, how & 2);
  FUZZ_CHECK(pieces == whole);
}
