// SPDX-License-Identifier: MIT
#include "transport/resolver.hh"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <cerrno>
#include <system_error>
#include <thread>

namespace rmem::transport {

// The thread writes `result`, then the event; the loop reads the event, then
// `result`.
struct Resolver::Lookup {
  UniqueFd event;
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
      lookup->result = resolve(host, port, false, false);
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
  finish(std::move(lookup->result));
}

void Resolver::finish(Result<std::vector<SocketAddress>> result) {
  const Done done = std::move(done_);  // which may destroy this
  done(std::move(result));
}

}  // namespace rmem::transport
