// SPDX-License-Identifier: MIT
#include "transport/pair.hh"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>

namespace rmem::transport {
namespace {

class PairEnd;

// What both ends share. An end that is gone is null.
struct Wire {
  explicit Wire(std::size_t capacity) : capacity(capacity) {}
  const std::size_t capacity;
  PairEnd* ends[2] = {nullptr, nullptr};
  std::deque<std::byte> bytes[2];  // on the way to ends[i]
};

class PairEnd final : public Connection {
 public:
  PairEnd(Reactor& reactor, std::shared_ptr<Wire> wire, int me)
      : wire_(std::move(wire)), me_(me), turn_(reactor, [this] { report(); }) {
    wire_->ends[me_] = this;
  }

  ~PairEnd() override {
    if (destroyed_ != nullptr) *destroyed_ = true;
    wire_->ends[me_] = nullptr;
    if (other() != nullptr) other()->changed();
  }

  void attach(Connection::Handler& handler) override { handler_ = &handler; }

  void watch(bool readable, bool writable) override {
    readable_ = readable;
    writable_ = writable;
    changed();
  }

  IoResult receive(std::span<const iovec> buffers) override {
    auto& bytes = wire_->bytes[me_];
    IoResult result;
    for (const iovec& buffer : buffers) {
      const std::size_t count = std::min(buffer.iov_len, bytes.size());
      std::copy_n(bytes.begin(), count, static_cast<std::byte*>(buffer.iov_base));
      bytes.erase(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(count));
      result.bytes += count;
    }
    if (result.bytes == 0 && other() != nullptr) result.err = EAGAIN;
    if (result.bytes > 0 && other() != nullptr) other()->changed();
    return result;
  }

  IoResult send(std::span<const iovec> buffers, bool) override {
    if (other() == nullptr) return {0, EPIPE};
    auto& bytes = wire_->bytes[1 - me_];
    IoResult result;
    for (const iovec& buffer : buffers) {
      const std::size_t count = std::min(buffer.iov_len, wire_->capacity - bytes.size());
      const auto* from = static_cast<const std::byte*>(buffer.iov_base);
      bytes.insert(bytes.end(), from, from + count);
      result.bytes += count;
    }
    if (result.bytes == 0) result.err = EAGAIN;
    if (result.bytes > 0) other()->changed();
    return result;
  }

  bool intact() const override { return true; }
  bool local() const override { return true; }
  const char* kind() const override { return "pair"; }
  const std::string& peer() const override { return peer_; }

 private:
  PairEnd* other() const { return wire_->ends[1 - me_]; }
  bool can_read() const { return readable_ && (!wire_->bytes[me_].empty() || other() == nullptr); }
  bool can_write() const {
    return writable_ && (other() == nullptr || wire_->bytes[1 - me_].size() < wire_->capacity);
  }
  bool hung_up() const { return !readable_ && other() == nullptr; }

  void changed() {
    if (handler_ != nullptr && (can_read() || can_write() || hung_up())) turn_.schedule();
  }

  void report() {
    bool destroyed = false;
    destroyed_ = &destroyed;
    if (can_read())
      handler_->on_readable();
    else if (hung_up())
      handler_->on_hangup();
    if (!destroyed && can_write()) handler_->on_writable();
    if (destroyed) return;
    destroyed_ = nullptr;
    changed();  // level-triggered
  }

  std::shared_ptr<Wire> wire_;
  const int me_;
  Reactor::TurnEnd turn_;
  Connection::Handler* handler_ = nullptr;
  bool readable_ = false;
  bool writable_ = false;
  bool* destroyed_ = nullptr;
  const std::string peer_ = "pair";
};

}  // namespace

std::pair<std::unique_ptr<Connection>, std::unique_ptr<Connection>> make_pair(
    Reactor& reactor, std::size_t capacity) {
  auto wire = std::make_shared<Wire>(capacity);
  auto one = std::make_unique<PairEnd>(reactor, wire, 0);
  auto two = std::make_unique<PairEnd>(reactor, wire, 1);
  return {std::move(one), std::move(two)};
}

}  // namespace rmem::transport
