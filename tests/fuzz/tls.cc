// SPDX-License-Identifier: MIT
// TLS, both roles, with the fuzzer on the way between them: it alters, cuts and adds. Either
// what was sent arrives as it was, or less of it and then the end.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/log.hh"
#include "fuzz/scripted.hh"
#include "transport/pair.hh"
#include "transport/tls_connection.hh"

namespace {

using namespace rmem;
using namespace rmem::transport;

// One of a handful of changes to what one end receives.
struct Change {
  std::size_t at = 0;
  std::uint8_t with = 0;
  std::uint8_t what = 0;  // 0: XOR; 1: the end; 2: so many bytes more
};

class Tampered final : public Connection {
 public:
  Tampered(std::unique_ptr<Connection> below, std::vector<Change> changes)
      : below_(std::move(below)), changes_(std::move(changes)) {}

  void attach(Handler& handler) override { below_->attach(handler); }
  void watch(bool readable, bool writable) override { below_->watch(readable, writable); }
  IoResult receive(std::span<const iovec> buffers) override {
    if (ended_) return {};
    auto* const bytes = static_cast<std::uint8_t*>(buffers[0].iov_base);
    const IoResult got = below_->receive(buffers.first(1));
    for (const Change& change : changes_) {
      if (change.at < received_ || change.at >= received_ + got.bytes) continue;
      if (change.what == 0) bytes[change.at - received_] ^= change.with;
      if (change.what == 1) {
        ended_ = true;
        return {};
      }
      if (change.what == 2) std::fill_n(bytes, std::min<std::size_t>(got.bytes, change.with), 0x16);
    }
    received_ += got.bytes;
    return got;
  }
  IoResult send(std::span<const iovec> buffers, bool more) override {
    return below_->send(buffers, more);
  }
  bool intact() const override { return false; }
  bool local() const override { return true; }
  const char* kind() const override { return "tampered"; }
  const std::string& peer() const override { return below_->peer(); }

 private:
  const std::unique_ptr<Connection> below_;
  const std::vector<Change> changes_;
  std::size_t received_ = 0;
  bool ended_ = false;
};

// One key, known to both; of a file without a place on any disk.
std::shared_ptr<const TlsCredentials> credentials(TlsSide side) {
  static const std::string path = [] {
    const int fd = ::memfd_create("keys", 0);
    const std::string text = "alice:00112233445566778899aabbccddeeff\n";
    FUZZ_CHECK(::fchmod(fd, 0600) == 0);
    FUZZ_CHECK(::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    return "/proc/self/fd/" + std::to_string(fd);
  }();
  TlsOptions options;
  options.psk = path;
  options.kernel = TlsOptions::Kernel::kOff;
  return std::move(TlsCredentials::load(side, options)).value();
}

struct End final : Connection::Handler {
  std::unique_ptr<TlsConnection> connection;
  std::optional<Status> shaken;
  std::string to_send, got;
  bool over = false;

  void begin() {
    connection->attach(*this);
    connection->watch(true, !to_send.empty());
  }
  void on_readable() override {
    char bytes[64];
    const iovec space = {bytes, sizeof bytes};
    const IoResult result = connection->receive({&space, 1});
    if (result.err == EAGAIN) return;
    got.append(bytes, result.bytes);
    if (result.bytes == 0) end();
  }
  void on_writable() override {
    const iovec buffer = {to_send.data(), to_send.size()};
    const IoResult sent = connection->send({&buffer, 1}, false);
    to_send.erase(0, sent.bytes);
    if (sent.err != 0 && sent.err != EAGAIN) return end();
    connection->watch(true, !to_send.empty());
  }
  void on_hangup() override { end(); }
  void end() {
    over = true;
    connection->watch(false, false);
  }
};

}  // namespace

FUZZ_TARGET(tls) {
  log::set_level(log::Level::kNone);
  static const auto server_side = credentials(TlsSide::kServer);
  static const auto client_side = credentials(TlsSide::kClient);
  fuzz::Input words(input);
  std::vector<Change> changes[2];
  for (int count = 0; count < 6 && !words.empty(); ++count) {
    const auto which = words.number<std::uint8_t>();
    Change change;
    change.at = words.number<std::uint16_t>() % 1200;
    change.with = words.number<std::uint8_t>();
    change.what = which / 2 % 3;
    changes[which % 2].push_back(change);
  }

  auto reactor = std::move(Reactor::create()).value();
  auto [a, b] = make_pair(*reactor, 700);
  const std::string words_of[2] = {std::string(500, 'c'), std::string(900, 's')};
  End ends[2];
  ends[0].connection =
      std::move(TlsConnection::create(*reactor, client_side,
                                      std::make_unique<Tampered>(std::move(a), changes[0]), "x"))
          .value();
  ends[1].connection =
      std::move(TlsConnection::create(*reactor, server_side,
                                      std::make_unique<Tampered>(std::move(b), changes[1]), {}))
          .value();
  for (int i : {1, 0}) {
    ends[i].to_send = words_of[i];
    ends[i].connection->shake_hands([&end = ends[i]](const Status& status) {
      end.shaken = status;
      if (status.ok()) end.begin();
    });
  }
  for (int turns = 0; turns < 200; ++turns) {
    fuzz::turn(*reactor);
    for (End& end : ends)
      if (end.connection && (end.over || (end.shaken && !end.shaken->ok()))) end.connection.reset();
  }
  for (int i : {0, 1}) FUZZ_CHECK(words_of[1 - i].starts_with(ends[i].got));
  if (changes[0].empty() && changes[1].empty())
    for (int i : {0, 1}) FUZZ_CHECK(ends[i].got == words_of[1 - i]);
}
