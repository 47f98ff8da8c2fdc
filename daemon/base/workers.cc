// SPDX-License-Identifier: MIT
#include "base/workers.hh"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <cerrno>
#include <system_error>

namespace rmem {

void Workers::Queue::push(Job& job) {
  job.next = nullptr;
  (last != nullptr ? last->next : first) = &job;
  last = &job;
}

Workers::Job* Workers::Queue::pop() {
  Job* job = first;
  if (job != nullptr && (first = job->next) == nullptr) last = nullptr;
  return job;
}

Result<std::unique_ptr<Workers>> Workers::create(Reactor& reactor, unsigned threads) {
  UniqueFd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event) return Status::from_errno(errno, "eventfd");
  std::unique_ptr<Workers> workers(new Workers(reactor, std::move(event)));
  if (const Status added = reactor.add(workers->event_.get(), EPOLLIN, *workers); !added.ok())
    return added;
  try {
    for (unsigned i = 0; i < threads; ++i)
      workers->threads_.emplace_back([self = workers.get()] { self->work(); });
  } catch (const std::system_error& error) {
    return Status::from_errno(error.code().value(), "cannot start a thread");
  }
  return workers;
}

Workers::Workers(Reactor& reactor, UniqueFd event) : reactor_(reactor), event_(std::move(event)) {}

Workers::~Workers() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  reactor_.remove(event_.get());
}

void Workers::submit(Job& job, When when) {
  {
    const std::lock_guard lock(mutex_);
    (when == When::kLater ? later_ : soon_).push(job);
  }
  wake_.notify_one();
}

Workers::Job* Workers::next() {
  if (soon_.first == nullptr || (later_.first != nullptr && overtaken_ == kSoonInARow)) {
    overtaken_ = 0;
    return later_.pop();
  }
  if (later_.first != nullptr) ++overtaken_;
  return soon_.pop();
}

void Workers::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock,
               [this] { return stopping_ || soon_.first != nullptr || later_.first != nullptr; });
    if (stopping_) return;
    Job* job = next();
    lock.unlock();
    job->run(*job);
    lock.lock();
    const bool first = finished_.first == nullptr;
    finished_.push(*job);
    if (first) (void)::eventfd_write(event_.get(), 1);
  }
}

void Workers::on_events(std::uint32_t) {
  eventfd_t count;
  (void)::eventfd_read(event_.get(), &count);
  Queue finished;
  {
    const std::lock_guard lock(mutex_);
    std::swap(finished, finished_);
  }
  while (Job* job = finished.pop()) job->done(*job);
}

}  // namespace rmem
