// SPDX-License-Identifier: MIT
#include "transport/socket.hh"

#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/tcp.h>  // tcp_info as the kernel has it
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <limits>
#include <string_view>
#include <utility>

namespace rmem::transport {

using namespace std::chrono_literals;

namespace {

constexpr int kBacklog = 128;
constexpr int kUnsentBytes = 128 << 10;
constexpr int kUnixBuffer = 1 << 20;
// CUBIC fills the queue of the bottleneck, and takes each lost packet for a sign of that; BBR
// does neither (Cardwell et al., "BBR: congestion-based congestion control", 2016). Nearer than
// kDistant there is no queue worth the cost of its timers.
constexpr std::string_view kShortQueues = "bbr";
constexpr int kDistantBuffer = 16 << 20;
constexpr std::string_view kAlwaysThere = "reno";
constexpr std::uint32_t kBbrUnit = 256;
// What comes sooner is no burst of its own, whatever the round trip, which costs a system call.
constexpr auto kPause = 5ms;
constexpr auto kNoSample = std::numeric_limits<std::uint32_t>::max();

msghdr message(std::span<const iovec> buffers) {
  msghdr header = {};
  header.msg_iov = const_cast<iovec*>(buffers.data());
  header.msg_iovlen = std::min<std::size_t>(buffers.size(), IOV_MAX);
  return header;
}

IoResult result(ssize_t count) {
  if (count >= 0) return {static_cast<std::size_t>(count), 0};
  return {0, errno == EWOULDBLOCK ? EAGAIN : errno};
}

void set_option(int fd, int level, int name, int value) {
  (void)::setsockopt(fd, level, name, &value, sizeof value);
}

// Whether the system has this congestion control, and lets us have it.
bool set_congestion_control(int fd, std::string_view name) {
  return ::setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name.data(),
                      static_cast<socklen_t>(name.size())) == 0;
}

// Removes a socket file that nobody listens at any more; leaves everything else
// alone.
Status remove_stale_socket(const std::string& path, const SocketAddress& address) {
  struct stat info = {};
  if (::lstat(path.c_str(), &info) != 0) return Status();
  if (!S_ISSOCK(info.st_mode))
    return Status(Code::kBusy, path + ": exists and is not a socket",
                  "remove it or use another path");
  const UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe) return Status::from_errno(errno, "socket");
  if (::connect(probe.get(), address.get(), address.length) == 0 || errno == EAGAIN)
    return Status(Code::kBusy, path + ": a live server listens there",
                  "stop it or use another path");
  if (errno != ECONNREFUSED) return Status::from_errno(errno, path);
  if (::unlink(path.c_str()) != 0) return Status::from_errno(errno, path);
  return Status();
}

}  // namespace

void tune_socket(int fd, int family, bool prompt) {
  if (family == AF_UNIX) {
    // The default holds less than one chunk; with privilege, more.
    if (::setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &kUnixBuffer, sizeof kUnixBuffer) != 0)
      set_option(fd, SOL_SOCKET, SO_SNDBUF, kUnixBuffer);
    return;
  }
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  if (prompt) set_option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, kUnsentBytes);
}

SocketConnection::SocketConnection(Reactor& reactor, UniqueFd fd, const SocketAddress& peer)
    : reactor_(reactor),
      fd_(std::move(fd)),
      local_(peer.local()),
      unix_(peer.family() == AF_UNIX),
      peer_(peer.to_string()) {}

SocketConnection::~SocketConnection() {
  if (destroyed_ != nullptr) *destroyed_ = true;
  reactor_.remove(fd_.get());
}

void SocketConnection::attach(Connection::Handler& handler) {
  handler_ = &handler;
  (void)reactor_.add(fd_.get(), 0, *this);
}

void SocketConnection::watch(bool readable, bool writable) {
  watch_events((readable ? std::uint32_t{EPOLLIN} : 0u) |
               (writable ? std::uint32_t{EPOLLOUT} : 0u));
}

void SocketConnection::watch_end(bool writable) {
  watch_events(std::uint32_t{EPOLLRDHUP} | (writable ? std::uint32_t{EPOLLOUT} : 0u));
}

void SocketConnection::watch_events(std::uint32_t events) {
  if (events == watched_) return;
  watched_ = events;
  (void)reactor_.modify(fd_.get(), events);
}

IoResult SocketConnection::receive(std::span<const iovec> buffers) {
  msghdr header = message(buffers);
  ssize_t count;
  // One buffer, as most often: recv() has less to look at.
  do
    count = buffers.size() == 1
                ? ::recv(fd_.get(), buffers[0].iov_base, buffers[0].iov_len, MSG_DONTWAIT)
                : ::recvmsg(fd_.get(), &header, MSG_DONTWAIT);
  while (count < 0 && errno == EINTR);
  return result(count);
}

// As long as BBR has not found the limit (STARTUP), Linux paces what it sends after a pause at
// 2.9 times the rate that it has measured; and of a burst that leaves within a round trip it
// measures burst / (round trip + duration), as it has the pause in it. So each takes half a
// round trip to leave, however wide the way is. One that begins anew sends at 2.9 times the
// rate of its window.
void SocketConnection::begin_burst() {
  const auto now = Reactor::Clock::now();
  const auto pause = now - std::exchange(sent_, now);
  if (pause < kPause || pause < round_trip()) return;
  tcp_cc_info info = {};
  socklen_t length = sizeof info;
  if (::getsockopt(fd_.get(), IPPROTO_TCP, TCP_CC_INFO, &info, &length) != 0 ||
      length < sizeof info.bbr || info.bbr.bbr_pacing_gain < 2 * kBbrUnit)
    return;
  (void)set_congestion_control(fd_.get(), kAlwaysThere);
  paced_ = set_congestion_control(fd_.get(), kShortQueues);
}

IoResult SocketConnection::send(std::span<const iovec> buffers, bool more) {
  if (paced_) begin_burst();
  const int flags = MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0);
  const msghdr header = message(buffers);
  ssize_t count;
  do
    count = buffers.size() == 1 ? ::send(fd_.get(), buffers[0].iov_base, buffers[0].iov_len, flags)
                                : ::sendmsg(fd_.get(), &header, flags);
  while (count < 0 && errno == EINTR);
  return result(count);
}

std::chrono::microseconds SocketConnection::round_trip() const {
  tcp_info info = {};
  socklen_t length = sizeof info;
  if (::getsockopt(fd_.get(), IPPROTO_TCP, TCP_INFO, &info, &length) != 0 ||
      info.tcpi_min_rtt == kNoSample)
    return {};
  return std::chrono::microseconds(info.tcpi_min_rtt);
}

void SocketConnection::carry_bulk() {
  if (distant_ || round_trip() < kDistant) return;
  distant_ = true;
  // Where the system does not have it, what it has serves.
  paced_ = set_congestion_control(fd_.get(), kShortQueues);
  // What is under way beyond the system's limits, with privilege: a smaller buffer than those
  // that it adjusts by itself would be none the better.
  // Linux 6.1 leaves the window of a connection that is made already at 64 KiB then, unless told.
  if (::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &kDistantBuffer, sizeof kDistantBuffer) ==
      0)
    set_option(fd_.get(), IPPROTO_TCP, TCP_WINDOW_CLAMP, kDistantBuffer);
  (void)::setsockopt(fd_.get(), SOL_SOCKET, SO_SNDBUFFORCE, &kDistantBuffer, sizeof kDistantBuffer);
}

void SocketConnection::on_events(std::uint32_t events) {
  // Forgotten at the end, also where an exception passes (no memory).
  struct Witness {
    explicit Witness(bool*& place) : place(place) { place = &destroyed; }
    ~Witness() {
      if (!destroyed) place = nullptr;
    }
    bool*& place;
    bool destroyed = false;
  } witness(destroyed_);
  const bool dead = events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP);
  if (watched_ & EPOLLIN) {
    if (dead || events & EPOLLIN) handler_->on_readable();
  } else if (dead) {
    handler_->on_hangup();
  }
  if (witness.destroyed) return;
  if (watched_ & EPOLLOUT && events & EPOLLOUT) handler_->on_writable();
}

Result<std::vector<std::unique_ptr<SocketListener>>> SocketListener::listen(
    Reactor& reactor, const Address& address, Listener::Handler& handler) {
  std::vector<SocketAddress> addresses;
  if (address.is_unix()) {
    auto made = unix_address(address.path);
    if (!made) return made.status();
    if (const Status ready = remove_stale_socket(address.path, *made); !ready.ok()) return ready;
    addresses.push_back(*made);
  } else {
    auto resolved = resolve(address.host, address.port, true, false);
    if (!resolved) return resolved.status();
    addresses = *std::move(resolved);
  }
  std::vector<std::unique_ptr<SocketListener>> listeners;
  for (const SocketAddress& at : addresses) {
    auto listener = listen_at(reactor, at, address.path, handler);
    if (!listener) {
      const Status status =
          listener.status().with_context("cannot listen at " + address.to_string());
      return status.code() == Code::kBusy
                 ? status.with_hint("stop the program that listens there, or use another address")
                 : status;
    }
    listeners.push_back(std::move(listener).value());
  }
  return listeners;
}

Result<std::unique_ptr<SocketListener>> SocketListener::listen_at(Reactor& reactor,
                                                                  const SocketAddress& address,
                                                                  const std::string& path,
                                                                  Listener::Handler& handler) {
  UniqueFd fd(::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return Status::from_errno(errno, "socket");
  if (address.family() != AF_UNIX) set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  // So that 0.0.0.0 and [::] can both be listened at.
  if (address.family() == AF_INET6) set_option(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1);
  if (::bind(fd.get(), address.get(), address.length) != 0)
    return Status::from_errno(errno, "bind");
  if (::listen(fd.get(), kBacklog) != 0) return Status::from_errno(errno, "listen");
  return start(reactor, std::move(fd), path, handler);
}

Result<std::unique_ptr<SocketListener>> SocketListener::adopt(Reactor& reactor, UniqueFd fd,
                                                              Listener::Handler& handler) {
  const auto option = [&](int name) {
    int value = -1;
    socklen_t length = sizeof value;
    (void)::getsockopt(fd.get(), SOL_SOCKET, name, &value, &length);
    return value;
  };
  const int domain = option(SO_DOMAIN);
  if (option(SO_TYPE) != SOCK_STREAM || option(SO_ACCEPTCONN) != 1 ||
      (domain != AF_INET && domain != AF_INET6 && domain != AF_UNIX))
    return Status(Code::kUsage, "the socket passed is not one to accept connections from",
                  "in the socket unit, use ListenStream= and Accept=no");
  if (::fcntl(fd.get(), F_SETFL, O_RDWR | O_NONBLOCK) != 0)
    return Status::from_errno(errno, "fcntl");
  return start(reactor, std::move(fd), {}, handler);
}

Result<std::unique_ptr<SocketListener>> SocketListener::start(Reactor& reactor, UniqueFd fd,
                                                              const std::string& path,
                                                              Listener::Handler& handler) {
  SocketAddress bound;
  bound.length = sizeof bound.storage;
  ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&bound.storage), &bound.length);
  const int number = fd.get();
  std::unique_ptr<SocketListener> listener(
      new SocketListener(reactor, std::move(fd), bound, path, handler));
  if (const Status added = reactor.add(number, EPOLLIN, *listener); !added.ok()) return added;
  return listener;
}

SocketListener::SocketListener(Reactor& reactor, UniqueFd fd, const SocketAddress& address,
                               std::string path, Listener::Handler& handler)
    : reactor_(reactor),
      fd_(std::move(fd)),
      address_(address),
      path_(std::move(path)),
      handler_(handler),
      pause_(reactor, [this] { (void)reactor_.modify(fd_.get(), EPOLLIN); }) {}

SocketListener::~SocketListener() {
  reactor_.remove(fd_.get());
  if (!path_.empty()) ::unlink(path_.c_str());
}

void SocketListener::on_events(std::uint32_t) {
  // A few per turn: those who are connected want to be served, too.
  for (int i = 0; i < 16; ++i) {
    SocketAddress peer;
    peer.length = sizeof peer.storage;
    UniqueFd fd(::accept4(fd_.get(), reinterpret_cast<sockaddr*>(&peer.storage), &peer.length,
                          SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        // The connection stays in the backlog; asking again at once would spin.
        (void)reactor_.modify(fd_.get(), 0);
        pause_.arm(100ms);
      }
      return;
    }
    // An unnamed unix peer has no family either.
    if (peer.length < sizeof(sa_family_t)) peer.storage.ss_family = AF_UNIX;
    tune_socket(fd.get(), address_.family(), !peer.local());
    handler_.on_accept(std::make_unique<SocketConnection>(reactor_, std::move(fd), peer));
  }
}

}  // namespace rmem::transport
