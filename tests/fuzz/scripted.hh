// SPDX-License-Identifier: MIT
// A connection whose other end is the fuzzer.
#pragma once

#include <algorithm>
#include <cerrno>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "base/reactor.hh"
#include "fuzz/fuzz.hh"
#include "transport/transport.hh"

namespace rmem::fuzz {

// One turn of the loop.
inline void turn(Reactor& reactor) {
  reactor.post([&reactor] { reactor.stop(); });
  reactor.run();
}

// What both ends know; outlives the connection, which the code under test owns.
struct Script {
  std::deque<std::byte> to_come;  // what the code under test will receive
  std::size_t piece = 1;          // of that, at a time
  std::size_t send_at_once = 1 << 20;
  std::vector<std::byte> sent;  // what it has sent
  bool ended = false;           // after to_come
  bool alive = false;
  bool readable = false, writable = false;  // watched
  transport::Connection::Handler* handler = nullptr;
  std::size_t allowed = 0;  // bytes until the next EAGAIN

  std::size_t take(std::byte* into, std::size_t most) {
    const std::size_t count = std::min({most, to_come.size(), allowed});
    std::copy_n(to_come.begin(), count, into);
    to_come.erase(to_come.begin(), to_come.begin() + static_cast<std::ptrdiff_t>(count));
    allowed -= count;
    return count;
  }
  // Tells the connection what there is. False: it wanted to know nothing.
  bool stir() {
    allowed = piece;
    if (alive && readable && (!to_come.empty() || ended)) {
      handler->on_readable();
    } else if (alive && ended && to_come.empty()) {
      handler->on_hangup();
    } else if (!alive || !writable) {
      return false;
    }
    if (alive && writable) handler->on_writable();
    return true;
  }
};

class Scripted final : public transport::Connection {
 public:
  Scripted(Script& script, int socket) : script_(script), socket_(socket) { script_.alive = true; }
  ~Scripted() override { script_.alive = false; }

  void attach(Handler& handler) override { script_.handler = &handler; }
  void watch(bool readable, bool writable) override {
    script_.readable = readable;
    script_.writable = writable;
  }
  void watch_end(bool writable) override { watch(false, writable); }
  transport::IoResult receive(std::span<const iovec> buffers) override {
    std::size_t got = 0;
    for (const iovec& buffer : buffers)
      got += script_.take(static_cast<std::byte*>(buffer.iov_base), buffer.iov_len);
    if (got != 0) return {got, 0};
    return {0, script_.ended && script_.to_come.empty() ? 0 : EAGAIN};
  }
  transport::IoResult send(std::span<const iovec> buffers, bool) override {
    std::size_t sent = 0;
    for (const iovec& buffer : buffers) {
      const std::size_t count = std::min(buffer.iov_len, script_.send_at_once - sent);
      const auto* from = static_cast<const std::byte*>(buffer.iov_base);
      script_.sent.insert(script_.sent.end(), from, from + count);
      sent += count;
    }
    return {sent, sent != 0 ? 0 : EAGAIN};
  }
  int socket() const override { return socket_; }
  bool intact() const override { return true; }
  bool local() const override { return true; }
  const char* kind() const override { return "scripted"; }
  const std::string& peer() const override { return peer_; }

 private:
  Script& script_;
  const int socket_;
  const std::string peer_ = "fuzzer";
};

}  // namespace rmem::fuzz
