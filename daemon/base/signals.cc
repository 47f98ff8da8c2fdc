// SPDX-License-Identifier: MIT
#include "base/signals.hh"

#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

#include <cerrno>

namespace rmem {

Result<std::unique_ptr<Signals>> Signals::create(Reactor& reactor,
                                                 std::function<void(int)> on_signal) {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGTERM);
  ::sigaddset(&set, SIGINT);
  ::sigaddset(&set, SIGHUP);
  ::sigaddset(&set, SIGUSR1);
  if (const int err = ::pthread_sigmask(SIG_BLOCK, &set, nullptr); err != 0)
    return Status::from_errno(err, "cannot block signals");
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGXFSZ, SIG_IGN);
  UniqueFd fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) return Status::from_errno(errno, "signalfd");
  const int number = fd.get();
  std::unique_ptr<Signals> made(new Signals(reactor, std::move(fd), std::move(on_signal)));
  if (const Status added = reactor.add(number, EPOLLIN, *made); !added.ok()) return added;
  return made;
}

Signals::Signals(Reactor& reactor, UniqueFd fd, std::function<void(int)> on_signal)
    : reactor_(reactor), fd_(std::move(fd)), on_signal_(std::move(on_signal)) {}

Signals::~Signals() { reactor_.remove(fd_.get()); }

void Signals::on_events(std::uint32_t) {
  signalfd_siginfo info;
  while (::read(fd_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info))
    on_signal_(static_cast<int>(info.ssi_signo));
}

}  // namespace rmem
