// SPDX-License-Identifier: MIT
#include "client.hh"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "base/json.hh"

namespace rmem::ctl {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kMaxReply = 4u << 20;

Status silent(const std::string& path, std::chrono::milliseconds patience) {
  const auto ms = patience.count();
  const std::string time =
      ms % 1000 == 0 ? std::to_string(ms / 1000) + "s" : std::to_string(ms) + "ms";
  return Status(Code::kTimeout, "rmemd at " + path + " did not answer within " + time,
                "see whether rmemd still runs; nothing is lost, the command may be repeated",
                ETIMEDOUT);
}

// Ready for `events`? 0 or an errno, ETIMEDOUT among them.
int wait_for(int fd, short events, Clock::time_point until) {
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count() + 1;
    if (left <= 0) return ETIMEDOUT;
    pollfd p{fd, events, 0};
    const int n = ::poll(&p, 1, static_cast<int>(std::min<std::int64_t>(left, 1 << 30)));
    if (n > 0) return 0;
    if (n < 0 && errno != EINTR) return errno;
  }
}

class NetlinkRegions final : public Regions {
 public:
  explicit NetlinkRegions(std::unique_ptr<kchan::Netlink> netlink) : netlink_(std::move(netlink)) {}
  Result<std::vector<kchan::RegionInfo>> list() override { return netlink_->list(); }
  Result<kchan::RegionInfo> get(const std::string& name) override { return netlink_->get(name); }
  Result<std::uint64_t> unmake_by_force(std::uint32_t id) override {
    const auto control = kchan::open_control();
    if (!control.ok()) return control.status();
    return netlink_->unmake_by_force(control->get(), id);
  }
  Status abort(std::uint32_t id) override {
    const auto control = kchan::open_control();
    if (!control.ok()) return control.status();
    return netlink_->abort(control->get(), id);
  }

 private:
  std::unique_ptr<kchan::Netlink> netlink_;
};

}  // namespace

Result<Daemon> Daemon::connect(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return Status(Code::kUsage, "--socket: `" + path + "' is empty or too long");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return Status::from_errno(errno, "control socket");
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
    return Daemon(path, std::move(fd));
  }
  switch (errno) {
    case ENOENT:
    case ECONNREFUSED:
    case ENOTSOCK:
      return Status(Code::kUnreachable, "no rmemd answers at " + path + ": " + std::strerror(errno),
                    "start it (systemctl start rmemd, or rmemd as root), or see --socket", errno);
    case EACCES:
    case EPERM:
      return Status(Code::kPermission, path + ": " + std::strerror(errno),
                    "run as root or as a member of group rmem", errno);
    case EAGAIN:
      return Status(Code::kTimeout, "rmemd at " + path + " does not accept connections",
                    "see whether rmemd still runs", EAGAIN);
    default:
      return Status::from_errno(errno, path);
  }
}

Status Daemon::went_away() const {
  return Status(Code::kUnreachable, "rmemd at " + path_ + " went away before it answered",
                "see its log; once it runs again the command may be repeated");
}

Result<nlohmann::json> Daemon::call(const nlohmann::json& request,
                                    std::chrono::milliseconds patience) {
  const Clock::time_point until = Clock::now() + patience;
  const std::string line =
      request.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  for (std::size_t sent = 0; sent < line.size();) {
    const ssize_t n = ::send(fd_.get(), line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
    if (n >= 0) {
      sent += static_cast<std::size_t>(n);
    } else if (errno == EAGAIN) {
      if (wait_for(fd_.get(), POLLOUT, until) != 0) return silent(path_, patience);
    } else if (errno != EINTR) {
      break;  // it may have said why before it hung up
    }
  }

  std::size_t end;
  while ((end = in_.find('\n')) == std::string::npos) {
    if (in_.size() > kMaxReply) return Status(Code::kFailed, path_ + ": the reply is too long");
    char buffer[16384];
    const ssize_t n = ::recv(fd_.get(), buffer, sizeof(buffer), 0);
    if (n > 0) {
      in_.append(buffer, static_cast<std::size_t>(n));
    } else if (n < 0 && errno == EAGAIN) {
      if (wait_for(fd_.get(), POLLIN, until) != 0) return silent(path_, patience);
    } else if (n == 0 || errno != EINTR) {
      return went_away();
    }
  }
  auto reply = parse_json(std::string_view(in_).substr(0, end));
  in_.erase(0, end + 1);

  const auto bad = [this] {
    return Status(Code::kFailed, path_ + ": the reply makes no sense",
                  "use rmemctl and rmemd of one release");
  };
  if (!reply.is_object() || !reply.contains("ok") || !reply["ok"].is_boolean()) return bad();
  if (reply["ok"].get<bool>()) return reply;
  const auto error = reply.value("error", nlohmann::json());
  if (!error.is_object() || !error.value("code", nlohmann::json()).is_number_integer())
    return bad();
  const int code = error["code"].get<int>();
  if (code < 1 || code > static_cast<int>(Code::kPaused)) return bad();
  const auto text = [&](const char* name) {
    const auto v = error.value(name, nlohmann::json());
    return v.is_string() ? v.get<std::string>() : std::string();
  };
  return Status(static_cast<Code>(code), text("cause"), text("hint"));
}

Result<std::unique_ptr<Regions>> kernel_regions() {
  auto netlink = kchan::Netlink::open();
  if (!netlink.ok()) return netlink.status();
  return std::unique_ptr<Regions>(new NetlinkRegions(std::move(*netlink)));
}

}  // namespace rmem::ctl
