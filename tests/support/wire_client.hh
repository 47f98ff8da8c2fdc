// SPDX-License-Identifier: MIT
// A client that sends what it is told to, good or bad, and keeps what comes.
#pragma once

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#include <deque>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/crc32c.hh"
#include "base/unique_fd.hh"
#include "support/loop.hh"
#include "wire/codec.hh"
#include "wire/frame_reader.hh"

namespace rmem::test {

class WireClient final : private Reactor::Handler, private wire::FrameReader::Sink {
 public:
  struct Frame {
    wire::Header header;
    std::vector<std::byte> payload;
    std::string text() const {
      return {reinterpret_cast<const char*>(payload.data()), payload.size()};
    }
  };

  // Connected to a unix socket.
  WireClient(Loop& loop, const std::string& path) : loop_(loop), reader_(*this, 4096) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    fd_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    EXPECT_EQ(::connect(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    reader_.set_max_payload(wire::kMaxPayload);
    EXPECT_TRUE(loop_.reactor().add(fd_.get(), EPOLLIN, *this).ok());
  }
  ~WireClient() { disconnect(); }

  void disconnect() {
    if (fd_) loop_.reactor().remove(fd_.get());
    fd_.reset();
  }

  // Bytes as they are; what the socket does not take now goes out as the loop
  // runs.
  void send_raw(std::span<const std::byte> bytes) {
    outbox_.insert(outbox_.end(), bytes.begin(), bytes.end());
    flush();
  }
  void send_raw(const std::string& text) { send_raw(std::as_bytes(std::span(text))); }

  // A frame with this connection's generation and the next request number.
  std::uint64_t send(wire::Header header, std::span<const std::byte> payload = {}) {
    header.request = ++last_request_;
    header.generation = generation;
    header.payload = static_cast<std::uint32_t>(payload.size());
    wire::HeaderBytes bytes;
    wire::encode(header, bytes);
    std::vector<std::byte> frame(bytes.begin(), bytes.end());
    frame.insert(frame.end(), payload.begin(), payload.end());
    send_raw(frame);
    return header.request;
  }
  std::uint64_t send(wire::Type type, std::span<const std::byte> payload = {}) {
    wire::Header header;
    header.type = type;
    return send(header, payload);
  }

  // The reply to that request, or the REFUSE that came instead.
  Frame reply(std::uint64_t request) {
    std::optional<Frame> found;
    loop_.until([&] {
      for (auto frame = frames.begin(); frame != frames.end(); ++frame)
        if (frame->header.request == request || frame->header.type == wire::Type::kRefuse) {
          found = std::move(*frame);
          frames.erase(frame);
          return true;
        }
      return closed;
    });
    if (!found) ADD_FAILURE() << "no reply, the connection was closed";
    return found.value_or(Frame{});
  }
  Frame call(wire::Header header, std::span<const std::byte> payload = {}) {
    return reply(send(header, payload));
  }
  Frame call(wire::Type type, std::span<const std::byte> payload = {}) {
    return reply(send(type, payload));
  }

  Frame hello(wire::Hello mine = {}) {
    mine.name = "test";
    mine.role = role;
    if (role != wire::Role::kEverything) mine.features |= wire::feature::kLanes;
    return call(wire::Type::kHello, wire::encode(mine));
  }
  Frame open(const std::string& name, std::uint16_t flags = 0) {
    wire::Header header;
    header.type = wire::Type::kOpen;
    header.flags = flags;
    Frame opened = call(header, std::as_bytes(std::span(name)));
    handle = opened.header.handle;
    return opened;
  }
  Frame claim(const Uuid& writer, std::uint64_t session = 1, bool take_over = false,
              std::uint64_t known = 0) {
    return reply(send_claim(writer, session, take_over, known));
  }
  std::uint64_t send_claim(const Uuid& writer, std::uint64_t session = 1, bool take_over = false,
                           std::uint64_t known = 0) {
    wire::Header header;
    header.type = wire::Type::kClaim;
    header.handle = handle;
    header.flags = take_over ? wire::flag::kTakeOver : 0;
    header.offset = session;
    header.length = known;
    return send(header, std::as_bytes(std::span(writer)));
  }
  std::uint64_t send_write(std::uint64_t offset, std::span<const std::byte> bytes) {
    wire::Header header;
    header.type = wire::Type::kWrite;
    header.handle = handle;
    header.offset = offset;
    header.length = bytes.size();
    return send(header, bytes);
  }
  Frame write(std::uint64_t offset, std::span<const std::byte> bytes) {
    return reply(send_write(offset, bytes));
  }
  Frame read(std::uint64_t offset, std::uint64_t length) {
    wire::Header header;
    header.type = wire::Type::kRead;
    header.handle = handle;
    header.offset = offset;
    header.length = length;
    return call(header);
  }
  Frame simple(wire::Type type) {
    wire::Header header;
    header.type = type;
    header.handle = handle;
    return call(header);
  }

  std::uint32_t generation = 1;
  std::uint32_t handle = 0;
  wire::Role role = wire::Role::kEverything;  // other than that: with the feature LANES
  std::deque<Frame> frames;
  bool closed = false;

 private:
  void flush() {
    if (!fd_) return;
    const ssize_t count = ::send(fd_.get(), outbox_.data(), outbox_.size(), MSG_NOSIGNAL);
    if (count > 0) outbox_.erase(outbox_.begin(), outbox_.begin() + count);
    EXPECT_TRUE(
        loop_.reactor()
            .modify(fd_.get(), outbox_.empty() ? EPOLLIN : std::uint32_t{EPOLLIN | EPOLLOUT})
            .ok());
  }
  void on_events(std::uint32_t events) override {
    if (events & EPOLLOUT) flush();
    const auto space = reader_.receive_space();
    const ssize_t count = ::readv(fd_.get(), space.data(), static_cast<int>(space.size()));
    if (count < 0 && errno == EAGAIN) return;
    if (count <= 0) {
      closed = true;
      return disconnect();
    }
    if (reader_.received(static_cast<std::size_t>(count)) == wire::FrameReader::State::kBroken)
      ADD_FAILURE() << "the server sent " << reader_.problem();
  }
  wire::FrameReader::Next on_header(const wire::Header& header,
                                    std::span<std::byte>& place) override {
    incoming_ = {header, std::vector<std::byte>(header.payload)};
    place = incoming_.payload;
    return wire::FrameReader::Next::kGoOn;
  }
  wire::FrameReader::Next on_frame(const wire::Header&, bool intact) override {
    EXPECT_TRUE(intact);
    frames.push_back(std::move(incoming_));
    return wire::FrameReader::Next::kGoOn;
  }

  Loop& loop_;
  UniqueFd fd_;
  wire::FrameReader reader_;
  Frame incoming_;
  std::uint64_t last_request_ = 0;
  std::vector<std::byte> outbox_;
};

}  // namespace rmem::test
