// SPDX-License-Identifier: MIT
// The client's side of a connection: whatever a server answers, each call ends once, a
// read has exactly the bytes that came as its answer, and not a byte is put where none
// belongs.
#include <deque>
#include <map>
#include <memory>

#include "base/bytes.hh"
#include "base/crc32c.hh"
#include "base/log.hh"
#include "fuzz/scripted.hh"
#include "store/remote_link.hh"

namespace {

using namespace rmem;
using store::RemoteLink;
using wire::FrameReader;
using wire::Type;

constexpr std::uint64_t kOwn = std::uint64_t{1} << 63;

// The requests that the client has sent.
class Heard final : public FrameReader::Sink {
 public:
  Heard() : reader_(*this, 4096) { reader_.set_max_payload(wire::kMaxPayload); }
  void take(std::vector<std::byte>& bytes) {
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
    bytes.clear();
  }
  FrameReader::Next on_header(const wire::Header& header, std::span<std::byte>& place) override {
    payload_.resize(header.payload);
    place = payload_;
    return FrameReader::Next::kGoOn;
  }
  FrameReader::Next on_frame(const wire::Header& header, bool intact) override {
    FUZZ_CHECK(intact && !header.reply());
    requests.push_back(header);
    return FrameReader::Next::kGoOn;
  }
  std::vector<wire::Header> requests;

 private:
  FrameReader reader_;
  std::vector<std::byte> payload_;
};

class Client final : public RemoteLink::Owner, store::Asker {
 public:
  explicit Client(std::span<const std::byte> input) : in_(input) {}

  void run(Reactor& reactor) {
    const auto how = in_.number<std::uint8_t>();
    script_.piece = 1 + std::size_t{1} * in_.number<std::uint8_t>() * 16;
    RemoteLink::Options options;
    options.checksum = how & 1;
    options.keep_alive = std::chrono::hours(1);
    store::ConnectionBudget budget(reactor);
    options.budget = &budget;
    options.generation = 7;
    options.codecs = how & 8 ? wire::feature::kCompression : 0;
    link_ = std::make_unique<RemoteLink>(reactor, std::make_unique<fuzz::Scripted>(script_, 99),
                                         options, *this);
    if (how & 2) script_.piece = 1 << 20;
    link_->start([this] { greeted_ = true; });
    fuzz::turn(reactor);
    heard_.take(script_.sent);
    if (how & 4) greet(how & 1, how & 16 ? wire::feature::kCompression : 0);
    while (!lost_ && !in_.empty()) {
      step();
      stir(reactor);
    }
    script_.ended = true;
    // Each turn takes a byte at least.
    for (auto most = script_.to_come.size() + 1000; most != 0 && !lost_ && script_.stir(); --most)
      fuzz::turn(reactor);
    FUZZ_CHECK(lost_);
    link_->close();
    link_.reset();
    FUZZ_CHECK(!script_.alive);
  }

 private:
  struct Call {
    std::unique_ptr<std::byte[]> bytes;
    std::size_t length = 0;
    bool over = false;
    Type type{};
    Client* client = nullptr;
  };

  void stir(Reactor& reactor) {
    for (int i = 0; i < 64; ++i) {
      if (!script_.stir() || script_.to_come.empty()) break;
      fuzz::turn(reactor);
    }
    fuzz::turn(reactor);
    heard_.take(script_.sent);
  }

  void answer(wire::Header header, std::span<const std::byte> payload, std::uint8_t mistake) {
    header.flags |= wire::flag::kReply;
    header.payload = static_cast<std::uint32_t>(payload.size());
    header.checksum = header.flags & wire::flag::kChecksum ? crc32c(payload) : 0;
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
        header.request ^= 1;
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
        header.flags &= ~wire::flag::kReply;
        break;
      case 9:
        header.length ^= 1;
        break;
      case 10:
        header.offset ^= 1;
        break;
      case 12:
        header.handle ^= 1;
        break;
      case 13:
        header.type = Type::kRefuse;
        break;
      case 14:
        header.request &= ~kOwn;
        break;
      case 15:
        header.error = 74;
        break;
      case 16:
        header.flags ^= wire::flag::kChecksum;
        break;
      default:
        break;
    }
    wire::HeaderBytes bytes;
    wire::encode(header, bytes);
    if (mistake == 11) bytes[60] ^= std::byte{1};
    auto& stream = script_.to_come;
    stream.insert(stream.end(), bytes.begin(), bytes.end());
    stream.insert(stream.end(), payload.begin(), payload.end());
  }

  void greet(bool checksum, std::uint64_t codecs) {
    wire::Hello hello;
    hello.version = 1;
    hello.features = wire::feature::kLanes | (checksum ? wire::feature::kChecksum : 0) | codecs;
    hello.max_requests = 16;
    hello.silence = std::chrono::seconds(30);
    wire::Header header = heard_.requests.at(0);
    heard_.requests.clear();
    answer(header, wire::encode(hello), 0);
  }

  // The client wants something, or the server says something.
  void step() {
    const auto what = in_.number<std::uint8_t>();
    if (what < 8) return script_say_raw();
    if (what < 16 && greeted_) {
      lent_ = true;
      return link_->lend(*this, 1, what & 1 ? 64 << 10 : 4096, what & 2);
    }
    if (what < 20) {
      link_->take_back();
      return;
    }
    if (what < 100 && greeted_) return ask(what);
    if (what < 120 && lent_) {  // by itself, as an asker does
      wire::Header header;
      header.type = Type::kRead;
      header.request = what & 7;
      header.handle = 1;
      header.generation = 7;
      header.offset = in_.number<std::uint16_t>();
      header.length = 1 + in_.number<std::uint16_t>() % 5000;
      asked_[header.request] = header;
      heard_.requests.push_back(header);
      return;
    }
    if (heard_.requests.empty()) return;
    const std::size_t which = what % heard_.requests.size();
    wire::Header header = heard_.requests[which];
    const auto mistake = in_.number<std::uint8_t>();
    if (mistake != 17)  // else it is answered once more
      heard_.requests.erase(heard_.requests.begin() + static_cast<std::ptrdiff_t>(which));
    std::vector<std::byte> payload;
    header.flags = 0;
    if (header.type == Type::kRead) {
      payload.assign(header.length, static_cast<std::byte>(what));
      if (link_->checksums()) header.flags |= wire::flag::kChecksum;
      // Compressed, or cut short: 18 to 21.
      const auto codec = mistake & 1 ? wire::Codec::kLz4 : wire::Codec::kZstd;
      std::vector<std::byte> small(payload.size());
      if (mistake >= 18 && mistake < 22) {
        small.resize(wire::compress(codec, payload, small));
        if (!small.empty()) {
          payload = std::move(small);
          payload.resize(payload.size() - (mistake >= 20));
          header.flags |= wire::codec_flag(codec);
        }
      }
    } else {
      const auto given = in_.bytes(in_.number<std::uint8_t>());
      payload.assign(given.begin(), given.end());
    }
    answer(header, payload, mistake);
  }

  void script_say_raw() {
    const auto raw = in_.bytes(in_.number<std::uint8_t>());
    script_.to_come.insert(script_.to_come.end(), raw.begin(), raw.end());
  }

  void ask(std::uint8_t what) {
    const bool reads = what & 1;
    const auto kind = reads ? RemoteLink::Kind::kRead : RemoteLink::Kind::kBulk;
    RemoteLink::Call* const call = link_->take(kind);
    if (call == nullptr) return;
    Call& mine = calls_.emplace_back();
    mine.client = this;
    mine.length = 1 + in_.number<std::uint16_t>();
    mine.bytes = std::make_unique<std::byte[]>(mine.length);
    mine.type = reads ? Type::kRead : Type::kWrite;
    call->header.type = mine.type;
    call->header.offset = in_.number<std::uint32_t>();
    call->header.length = mine.length;
    if (!reads) {
      call->out = {mine.bytes.get(), mine.length};
    } else if (what & 2 && link_->can_receive(mine.length)) {
      call->receiver = this;
      call->receiver_ctx = &mine;
    } else {
      call->in = {mine.bytes.get(), mine.length};
    }
    call->ctx = &mine;
    call->done = [](void* ctx, const RemoteLink::Reply& reply) {
      auto& done = *static_cast<Call*>(ctx);
      FUZZ_CHECK(!done.over && !done.client->lost_);
      FUZZ_CHECK(reply.header.type == done.type);
      done.over = true;
      if (reply.err != 0 || done.type != Type::kRead) return;
      // The bytes of one answer, all of them.
      for (std::size_t i = 0; i < done.length; ++i)
        FUZZ_CHECK(done.bytes[i] == done.bytes[0] && done.bytes[i] != std::byte{0});
    };
    link_->submit(*call, 1, kind);
  }

  // store::Receiver, for calls that have one and for what is lent.
  bool zeros(void* ctx) override {
    FUZZ_CHECK(ctx != this);
    return true;
  }
  bool whole(void* ctx, std::span<const std::byte> bytes) override {
    FUZZ_CHECK(ctx != this);
    auto& call = *static_cast<Call*>(ctx);
    FUZZ_CHECK(bytes.size() == call.length);
    std::ranges::copy(bytes, call.bytes.get());
    return true;
  }
  Taken receive(void* ctx, std::uint64_t offset, std::uint64_t length, int socket,
                const std::optional<std::uint32_t>&) override {
    FUZZ_CHECK(socket == 99);
    std::byte* into = control_.data();
    std::size_t most = std::min<std::uint64_t>(length, control_.size());
    if (ctx != this) {
      auto& call = *static_cast<Call*>(ctx);
      FUZZ_CHECK(offset + length == call.length);
      into = call.bytes.get() + offset;
      most = length;
    }
    const std::size_t got = script_.take(into, most);
    if (got == length) return {got, false, 0};
    if (got == 0 && script_.ended && script_.to_come.empty()) return {0, true, 0};
    return {got, false, EAGAIN};
  }

  // store::Asker
  Begun begin(const Lane& lane) override {
    FUZZ_CHECK(lane.number == 7 && lane.message.size() == wire::kHeaderBytes);
    return Begun::kAsks;
  }
  Started pause(std::span<std::byte>) override { return {}; }
  void lost(std::uint32_t) override { asked_.clear(); }
  std::optional<void*> awaited(std::uint64_t cookie, std::uint64_t offset,
                               std::uint64_t length) override {
    const auto found = asked_.find(cookie);
    if (found == asked_.end()) return nullptr;
    if (length != 0 && (found->second.offset != offset || found->second.length != length))
      return std::nullopt;
    return this;
  }
  void answered(void*, const store::Outcome&, std::span<const std::byte>) override {}

  // RemoteLink::Owner
  void on_link_lost(const Status& reason) override {
    FUZZ_CHECK(!lost_ && !reason.ok() && !reason.cause().empty());
    lost_ = true;
  }
  void on_asked(const RemoteLink::Reply& reply, std::span<const std::byte> bytes,
                void* ctx) override {
    FUZZ_CHECK(ctx == this);
    asked_.erase(reply.header.request);
    for (const std::byte byte : bytes) FUZZ_CHECK(byte == bytes[0]);
  }

  fuzz::Input in_;
  fuzz::Script script_;
  Heard heard_;
  std::unique_ptr<RemoteLink> link_;
  std::deque<Call> calls_;
  std::map<std::uint64_t, wire::Header> asked_;
  std::array<std::byte, 8192> control_;
  bool greeted_ = false;
  bool lent_ = false;
  bool lost_ = false;
};

}  // namespace

FUZZ_TARGET(client) {
  static const auto reactor = std::move(Reactor::create()).value();
  log::set_level(log::Level::kNone);
  Client client(input);
  client.run(*reactor);
}
