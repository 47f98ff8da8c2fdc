// SPDX-License-Identifier: MIT
// What arrives at rmemd's control socket: each line gets one answer, which is JSON and
// carries the line's id; no verb is reached by nonsense. And the notes that a daemon
// leaves for its successor.
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <filesystem>
#include <string>

#include "base/json.hh"
#include "base/log.hh"
#include "control/options.hh"
#include "control/verbs.hh"
#include "fuzz/fuzz.hh"
#include "unit/control/fakes.hh"

namespace {

using namespace rmem;
using namespace rmem::control;
using nlohmann::json;

void turn(Reactor& reactor) {
  reactor.post([&reactor] { reactor.stop(); });
  reactor.run();
}

// A daemon without a module, in this process.
struct Daemon {
  Daemon() {
    log::set_level(log::Level::kNone);
    std::string name = "/dev/shm/rmem-fuzz-XXXXXX";
    FUZZ_CHECK(::mkdtemp(name.data()) != nullptr);
    directory = name;
    auto socket = ControlSocket::listen(directory + "/sock");
    FUZZ_CHECK(socket.ok());
    server = std::make_unique<Server>(
        *reactor, std::move(*socket),
        [this](const Peer& peer, const json& request, const Server::Reply& reply) {
          verbs->handle(peer, request, reply);
        });
    FUZZ_CHECK(server->start().ok());
  }
  ~Daemon() {
    server.reset();
    std::error_code ignored;
    std::filesystem::remove_all(directory, ignored);
  }

  // What it says to that, until it hangs up.
  std::string ask(std::string_view lines) {
    FakeModule kernel;
    NoChannel channel;
    pager::Pager pager(channel, {.buffer_bytes = 1 << 20, .requests = 16}, [](auto) {});
    FakeSources sources;
    const AttachOptions defaults;
    Regions regions(*reactor, kernel, pager, sources, "default",
                    Recordings(directory + "/recordings"));
    Verbs served(regions, sources, "default", defaults);
    verbs = &served;

    const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    (directory + "/sock").copy(address.sun_path, sizeof address.sun_path - 1);
    FUZZ_CHECK(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    std::string said;
    bool shut = false;
    for (int turns = 0;; ++turns) {
      FUZZ_CHECK(turns < 100'000);
      if (!lines.empty()) {
        const ssize_t sent =
            ::send(fd.get(), lines.data(), lines.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0) lines.remove_prefix(static_cast<std::size_t>(sent));
        if (sent < 0 && errno != EAGAIN) lines = {};
      } else if (!std::exchange(shut, true)) {
        ::shutdown(fd.get(), SHUT_WR);
      }
      turn(*reactor);
      pager.tick();
      char buffer[16384];
      const ssize_t got = ::recv(fd.get(), buffer, sizeof buffer, MSG_DONTWAIT);
      if (got > 0) said.append(buffer, static_cast<std::size_t>(got));
      if (got == 0 || (got < 0 && errno != EAGAIN)) break;
    }
    turn(*reactor);
    turn(*reactor);
    return said;
  }

  std::unique_ptr<Reactor> reactor = std::move(Reactor::create()).value();
  std::string directory;
  std::unique_ptr<Server> server;
  Verbs* verbs = nullptr;
};

void lines(std::string_view text) {
  static Daemon daemon;
  const std::string said = daemon.ask(text);
  std::string_view left = said;
  while (!left.empty()) {
    const auto end = left.find('\n');
    FUZZ_CHECK(end != left.npos);
    const json reply = json::parse(left.substr(0, end), nullptr, false);
    FUZZ_CHECK(reply.is_object() && reply["ok"].is_boolean() && reply["schema"] == 1);
    left.remove_prefix(end + 1);

    // It answers the next line that is not empty.
    std::string_view line;
    while (line.empty()) {
      const auto stop = text.find('\n');
      if (stop == text.npos) {
        FUZZ_CHECK(text.size() > Server::kMaxLine && !reply["ok"]);
        FUZZ_CHECK(left.empty());
        return;
      }
      line = text.substr(0, stop);
      text.remove_prefix(stop + 1);
    }
    const json request = parse_json(line);
    if (!request.is_object()) {
      FUZZ_CHECK(!reply["ok"] && left.empty());  // and is left
      return;
    }
  }
  // Nothing was left without an answer.
  while (text.starts_with('\n')) text.remove_prefix(1);
  FUZZ_CHECK(text.find('\n') == text.npos);
}

// Accepted is only what lies within the store, and it is written back the same.
void recording(const std::string& text) {
  constexpr std::uint64_t kSize = 1 << 20;
  const Uuid store = {0x12, 0x3e, 0x45, 0x67};
  const auto ranges = recording_from_json(text, store, kSize);
  if (!ranges) return;
  for (const pager::Range& range : *ranges)
    FUZZ_CHECK(range.length != 0 && range.offset < kSize && range.length <= kSize - range.offset);
  const auto again = recording_from_json(recording_to_json(store, kSize, *ranges), store, kSize);
  FUZZ_CHECK(again.ok() && *again == *ranges);
}

void notes(const std::string& blob) {
  auto noted = Notes::from_blob(blob);
  if (!noted) return;
  // Name and source are the kernel's to keep, taking over was for once.
  noted->options.name = noted->options.source = "";
  noted->options.take_over = false;
  const auto again = Notes::from_blob(noted->to_blob());
  FUZZ_CHECK(again.ok());
  FUZZ_CHECK(again->options == noted->options);
  FUZZ_CHECK(again->options.bind_created == noted->options.bind_created);
  FUZZ_CHECK(again->identity == noted->identity);
  FUZZ_CHECK(again->claim_generation == noted->claim_generation);
}

}  // namespace

FUZZ_TARGET(control) {
  const std::string text(fuzz::text(input));
  notes(text);
  recording(text);
  if (const auto options = options_from_json(json::parse(text, nullptr, false))) {
    const auto again = options_from_json(
        parse_json(to_json(*options).dump(-1, ' ', false, json::error_handler_t::replace)));
    FUZZ_CHECK(again.ok() && *again == *options && again->take_over == options->take_over);
  }
  lines(text);
}
