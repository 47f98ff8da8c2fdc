// SPDX-License-Identifier: MIT
// The server's side of a connection: whatever a client sends, in whatever pieces, the
// server answers each request once, in frames that are well formed, or refuses, and
// never gives more than the store's bytes.
#include "server/session.hh"

#include <deque>
#include <memory>
#include <set>

#include "base/bytes.hh"
#include "base/crc32c.hh"
#include "base/log.hh"
#include "base/workers.hh"
#include "fuzz/scripted.hh"

namespace {

using namespace rmem;
using wire::FrameReader;
using wire::Type;

constexpr std::uint64_t kSize = 64 << 10;

// Makes frames out of the input: mostly what a client could send, with mistakes.
class Client {
 public:
  explicit Client(std::deque<std::byte>& stream) : stream_(stream) {}

  void frame(wire::Header header, std::span<const std::byte> payload, std::uint8_t mistake = 0) {
    header.request = ++requests_;
    header.generation = 7;
    header.payload = static_cast<std::uint32_t>(payload.size());
    if (header.flags & wire::flag::kChecksum) header.checksum = crc32c(payload);
    switch (mistake) {
      case 1:
        header.generation = 8;
        break;
      case 2:
        header.payload += 1;
        break;
      case 3:
        header.payload = 0xffffffff;
        break;
      case 4:
        header.request = 1;
        break;
      case 5:
        header.checksum ^= 1;
        break;
      case 6:
        header.version = 2;
        break;
      case 7:
        header.error = 5;
        break;
      case 8:
        header.flags |= wire::flag::kReply;
        break;
      case 9:
        header.length |= std::uint64_t{1} << 63;
        break;
      case 10:
        header.offset |= 0xffffffff00000000;
        break;
      default:
        break;
    }
    wire::HeaderBytes bytes;
    wire::encode(header, bytes);
    if (mistake == 11) bytes[60] ^= std::byte{1};
    stream_.insert(stream_.end(), bytes.begin(), bytes.end());
    stream_.insert(stream_.end(), payload.begin(), payload.end());
  }
  void hello(std::uint64_t features, wire::Role role) {
    wire::Hello hello;
    hello.features = features;
    hello.role = role;
    hello.name = "fuzz";
    const auto payload = wire::encode(hello);
    frame({.type = Type::kHello}, payload);
  }
  void open(std::uint16_t flags) {
    frame({.type = Type::kOpen, .flags = flags}, std::as_bytes(std::span("mem", 3)));
  }
  void claim() {
    const Uuid writer{1};
    frame({.type = Type::kClaim, .handle = 1, .offset = 1}, std::as_bytes(std::span(writer)));
  }

  // 16 bytes and a payload each.
  void from(fuzz::Input& in) {
    wire::Header header;
    header.type = static_cast<Type>(in.number<std::uint8_t>());
    header.flags = in.number<std::uint8_t>() & ~wire::flag::kReply;
    header.handle = in.number<std::uint8_t>();
    const auto mistake = in.number<std::uint8_t>();
    header.offset = in.number<std::uint32_t>();
    header.length = in.number<std::uint32_t>();
    const auto payload = in.bytes(in.number<std::uint16_t>());
    if (mistake != 12) return frame(header, payload, mistake);
    // What its flags say, and its length.
    std::vector<std::byte> small(payload.size());
    small.resize(wire::compress(wire::codec_of(header.flags), payload, small));
    header.length = payload.size();
    frame(header, small, 0);
  }

 private:
  std::deque<std::byte>& stream_;
  std::uint64_t requests_ = 0;
};

// What the server sends, judged.
class Judge final : public FrameReader::Sink {
 public:
  explicit Judge(const std::vector<std::byte>& bytes) : reader_(*this, 4096) {
    reader_.set_max_payload(wire::kMaxPayload);
    for (std::span<const std::byte> left = bytes; !left.empty();) {
      std::size_t put = 0;
      for (const iovec& space : reader_.receive_space()) {
        const std::size_t count = std::min(space.iov_len, left.size());
        std::memcpy(space.iov_base, left.data(), count);
        left = left.subspan(count);
        put += count;
      }
      FUZZ_CHECK(reader_.received(put) == FrameReader::State::kMore);
    }
  }
  FrameReader::Next on_header(const wire::Header& header, std::span<std::byte>& place) override {
    FUZZ_CHECK(!refused_);
    payload_.resize(header.payload);
    place = payload_;
    return FrameReader::Next::kGoOn;
  }
  FrameReader::Next on_frame(const wire::Header& header, bool intact) override {
    FUZZ_CHECK(intact);
    refused_ = header.type == Type::kRefuse;
    if (refused_) {
      FUZZ_CHECK(header.error != 0 && header.payload <= wire::kMaxErrorText);
    } else {
      FUZZ_CHECK(header.reply());
      if (header.error != 0) FUZZ_CHECK(header.payload <= wire::kMaxErrorText);
      if (header.error == 0 && header.type == Type::kRead) {
        const bool zeros = header.flags & wire::flag::kZeros;
        FUZZ_CHECK(zeros
                       ? header.payload == 0
                       : header.payload == header.length || header.flags & wire::flag::kCompressed);
        FUZZ_CHECK(header.offset + header.length <= kSize);
      }
    }
    ++answers;
    return FrameReader::Next::kGoOn;
  }
  std::size_t answers = 0;

 private:
  FrameReader reader_;
  std::vector<std::byte> payload_;
  bool refused_ = false;
};

struct Owner final : server::Session::Owner {
  void on_session_opened(server::Session&) override {}
  void on_session_over(server::Session&) override {
    FUZZ_CHECK(!over);
    over = true;
  }
  bool over = false;
};

}  // namespace

FUZZ_TARGET(session) {
  static const auto reactor = std::move(Reactor::create()).value();
  static const auto workers = std::move(Workers::create(*reactor, 0)).value();
  log::set_level(log::Level::kNone);

  fuzz::Input in(input);
  const auto how = in.number<std::uint8_t>();
  const auto pace = in.number<std::uint8_t>();
  fuzz::Script script;
  script.piece = 1 + std::size_t{pace} * pace;
  script.send_at_once = how & 0x10 ? 100 : 1 << 20;
  Client client(script.to_come);
  if (how & 1)
    client.hello((how & 0x20 ? wire::feature::kChecksum : wire::feature::kLanes) |
                     (pace & 1 ? wire::feature::kCompression : 0),
                 static_cast<wire::Role>(how >> 6));
  if (how & 2) client.open(how & 0x20 ? wire::flag::kReadOnly : 0);
  if (how & 4) client.claim();
  if (how & 8) {
    const auto raw = in.rest();
    script.to_come.insert(script.to_come.end(), raw.begin(), raw.end());
  }
  std::size_t frames = 3;
  for (; !in.empty() && script.to_come.size() < 1 << 20; ++frames) client.from(in);

  const auto spec = server::ExportSpec::parse("mem=mem://64KiB");
  auto exports = server::Exports::open(*reactor, *workers, {*spec}, "/nowhere");
  FUZZ_CHECK(exports.ok());
  Owner owner;
  server::Audits audits;
  server::Buffers buffers(1 << 20);
  {
    server::Session session(*reactor, std::make_unique<fuzz::Scripted>(script, -1), *exports, {},
                            buffers, audits, owner);
    while (script.stir()) {
      fuzz::turn(*reactor);
      if (script.to_come.empty()) script.ended = true;
    }
    session.close();
    FUZZ_CHECK(owner.over);
  }
  const Judge judge(script.sent);
  // REFUSE may come on top of an answer.
  if (!(how & 8)) FUZZ_CHECK(judge.answers <= frames + 1);
}
