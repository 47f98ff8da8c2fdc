// SPDX-License-Identifier: MIT
#include "transport/resolver.hh"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <cerrno>
#include <mutex>
#include <system_error>
#include <thread>

namespace rmem::transport {

struct Resolver::Lookup {
  UniqueFd event;    // counts once `result` is there
  std::mutex mutex;  // guards `result`
  Result<std::vector<SocketAddress>> result = Status(Code::kFailed, "not resolved");
};

Resolver::~Resolver() {
  if (lookup_) reactor_.remove(lookup_->event.get());
}

void Resolver::start(const std::string& host, std::uint16_t port) {
  if (auto numeric = resolve(host, port, false, true); numeric) return finish(std::move(numeric));

  auto lookup = std::make_shared<Lookup>();
  lookup->event.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!lookup->event) return finish(Status::from_errno(errno, "eventfd"));
  if (const Status added = reactor_.add(lookup->event.get(), EPOLLIN, *this); !added.ok())
    return finish(added);
  lookup_ = lookup;
  try {
    std::thread([lookup, host, port] {
      auto resolved = resolve(host, port, false, false);
      {
        const std::lock_guard lock(lookup->mutex);
        lookup->result = std::move(resolved);
      }
      (void)::eventfd_write(lookup->event.get(), 1);
    }).detach();
  } catch (const std::system_error& error) {
    reactor_.remove(lookup_->event.get());
    lookup_.reset();
    finish(Status::from_errno(error.code().value(), "cannot start a thread"));
  }
}

void Resolver::on_events(std::uint32_t) {
  eventfd_t count;
  if (::eventfd_read(lookup_->event.get(), &count) != 0) return;
  reactor_.remove(lookup_->event.get());
  const auto lookup = std::move(lookup_);
  std::unique_lock lock(lookup->mutex);
  auto result = std::move(lookup->result);
  lock.unlock();
  finish(std::move(result));
}

void Resolver::finish(Result<std::vector<SocketAddress>> result) {
  const Done done = std::move(done_);  // which may destroy this
  done(std::move(result));
}

}  // namespace rmem::transport
