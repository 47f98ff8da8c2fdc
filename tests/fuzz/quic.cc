// SPDX-License-Identifier: MIT
// QUIC, both roles. The way between them loses, doubles, swaps, alters and cuts datagrams: what
// arrives is what was sent, or less of it. And either may be a liar, who alters what is in his
// packets before they are encrypted: that does the other no harm.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/log.hh"
#include "fuzz/scripted.hh"
#include "transport/quic_link.hh"

namespace {

using namespace rmem;
using namespace rmem::transport;

struct Change {
  enum What : std::uint8_t { kLose, kDouble, kSwap, kAlter, kCut, kLie, kKinds };
  What what = kLose;
  std::size_t packet = 0;  // of that end, from 0; of a lie, of both
  std::size_t at = 0;
  std::uint8_t with = 0;
};

// Of one run. (The callback of ngtcp2's has no room for them.)
std::vector<Change> lies;
std::size_t encrypted = 0;  // packets

int encrypt(std::uint8_t* to, const ngtcp2_crypto_aead* aead, const ngtcp2_crypto_aead_ctx* context,
            const std::uint8_t* plain, std::size_t length, const std::uint8_t* nonce,
            std::size_t nonce_length, const std::uint8_t* data, std::size_t data_length) {
  std::vector<std::uint8_t> said(plain, plain + length);
  for (const Change& lie : lies)
    if (lie.packet == encrypted && length > 0) said[lie.at % length] = lie.with;
  ++encrypted;
  return ngtcp2_crypto_encrypt_cb(to, aead, context, said.data(), length, nonce, nonce_length, data,
                                  data_length);
}

SocketAddress address(std::uint16_t port) {
  SocketAddress made;
  auto& in = reinterpret_cast<sockaddr_in&>(made.storage);
  in.sin_family = AF_INET;
  in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  in.sin_port = htons(port);
  made.length = sizeof in;
  return made;
}

constexpr std::size_t kMessages[] = {1, 3000, 20'000};

struct End final : QuicLink::Port, Connection::Handler {
  explicit End(std::string words) : to_send(std::move(words)) {}

  std::vector<Change> changes;
  std::size_t packets = 0;
  std::vector<std::vector<std::uint8_t>> on_the_way;
  std::shared_ptr<QuicLink> link;
  std::unique_ptr<QuicConnection> connection;
  const std::string to_send;
  std::size_t sent = 0, messages_sent = 0;
  std::string got;
  std::vector<std::string> messages;

  void leave() {
    connection.reset();
    link.reset();
  }

  int send(const UdpSocket::Batch& batch) override {
    for (std::size_t at = 0; at < batch.bytes.size(); at += batch.segment) {
      const auto part = batch.bytes.subspan(at, std::min(batch.segment, batch.bytes.size() - at));
      std::vector<std::uint8_t> packet(part.begin(), part.end());
      const std::size_t number = packets++;
      bool lost = false;
      for (const Change& change : changes) {
        if (change.packet != number) continue;
        if (change.what == Change::kLose) lost = true;
        if (change.what == Change::kDouble) on_the_way.push_back(packet);
        if (change.what == Change::kSwap && !on_the_way.empty()) packet.swap(on_the_way.back());
        if (change.what == Change::kAlter) packet[change.at % packet.size()] ^= change.with;
        if (change.what == Change::kCut) packet.resize(1 + change.at % packet.size());
      }
      if (!lost) on_the_way.push_back(std::move(packet));
    }
    return 0;
  }
  void wait_writable() override {}
  void add(const QuicLink::Id&, QuicLink&) override {}
  void remove(const QuicLink::Id&) override {}
  void reset_token(const QuicLink::Id&, std::uint8_t* token) override {
    std::memset(token, 7, NGTCP2_STATELESS_RESET_TOKENLEN);
  }
  void shaken(QuicLink& shaken_link, const Status& status) override {
    if (!status.ok()) return;
    connection = std::make_unique<QuicConnection>(shaken_link.shared_from_this());
    connection->attach(*this);
    connection->watch(true, true);
  }
  void dead(QuicLink&) override {}

  void on_readable() override {
    for (std::vector<std::byte> message; connection->receive_message(message);)
      messages.emplace_back(reinterpret_cast<const char*>(message.data()), message.size());
    char bytes[512];
    const iovec space = {bytes, sizeof bytes};
    const IoResult result = connection->receive({&space, 1});
    if (result.bytes == 0 && result.err != EAGAIN) return connection->watch(false, false);
    got.append(bytes, result.bytes);
  }
  void on_writable() override {
    for (; messages_sent < std::size(kMessages); ++messages_sent) {
      const iovec message = {const_cast<char*>(to_send.data()), kMessages[messages_sent]};
      if (connection->send_message({&message, 1}) != 0) break;
    }
    const iovec left = {const_cast<char*>(to_send.data()) + sent, to_send.size() - sent};
    if (left.iov_len > 0) sent += connection->send({&left, 1}, false).bytes;
    connection->watch(true, sent < to_send.size());
  }
  void on_hangup() override {}
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
  return std::move(TlsCredentials::load(side, options)).value();
}

// As a listener takes a client's first packet.
void accept(Reactor& reactor, End& server, const QuicLink::Start& usual,
            std::span<const std::uint8_t> packet) {
  ngtcp2_pkt_hd head;
  if (ngtcp2_accept(&head, packet.data(), packet.size()) != 0) return;
  QuicLink::Start start = usual;
  start.client_id = head.scid;
  start.first_id = head.dcid;
  start.version = head.version;
  if (auto made = QuicLink::create(reactor, server, start)) server.link = std::move(made).value();
}

}  // namespace

FUZZ_TARGET(quic) {
  log::set_level(log::Level::kNone);
  static const auto server_side = credentials(TlsSide::kServer);
  static const auto client_side = credentials(TlsSide::kClient);
  auto reactor = std::move(Reactor::create()).value();
  End client(std::string(40'000, 'c')), server(std::string(50'000, 's'));
  End* const ends[] = {&client, &server};
  lies.clear();
  encrypted = 0;
  fuzz::Input words(input);
  for (int count = 0; count < 8 && !words.empty(); ++count) {
    const auto which = words.number<std::uint8_t>();
    Change change;
    change.what = static_cast<Change::What>(which / 2 % Change::kKinds);
    change.packet = words.number<std::uint8_t>() % 64;
    change.at = words.number<std::uint16_t>();
    change.with = words.number<std::uint8_t>();
    (change.what == Change::kLie ? lies : ends[which % 2]->changes).push_back(change);
  }

  QuicLink::Start to_server, to_client;
  to_server.credentials = client_side;
  to_server.local = to_client.remote = address(1);
  to_server.remote = to_client.local = address(2);
  to_server.host = "localhost";
  to_client.credentials = server_side;
  to_server.encrypt = to_client.encrypt = encrypt;
  client.link = std::move(QuicLink::create(*reactor, client, to_server)).value();
  const auto whole = [&](const End& end) {
    return end.got.size() == (&end == &client ? server : client).to_send.size() &&
           end.messages.size() == std::size(kMessages);
  };
  for (int turn = 0; turn < 200 || (input.empty() && !(whole(client) && whole(server))); ++turn) {
    fuzz::turn(*reactor);
    for (End* const end : ends) {
      End& other = end == &client ? server : client;
      const QuicLink::Start& of_other = end == &client ? to_client : to_server;
      for (const auto& packet : std::exchange(end->on_the_way, {})) {
        if (!other.link) accept(*reactor, other, of_other, packet);
        if (!other.link || other.link->is_dead()) continue;
        other.link->on_packets({of_other.remote, of_other.local, 0, packet, packet.size()});
      }
    }
  }
  for (End* const end : ends) end->leave();
  if (!lies.empty()) return;
  for (End* const end : ends) {
    const std::string& said = (end == &client ? server : client).to_send;
    FUZZ_CHECK(said.starts_with(end->got));
    for (const std::string& message : end->messages) FUZZ_CHECK(said.starts_with(message));
  }
}
