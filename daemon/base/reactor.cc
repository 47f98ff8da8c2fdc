// SPDX-License-Identifier: MIT
#include "base/reactor.hh"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <utility>
#include <vector>

#include "base/unique_fd.hh"

namespace rmem {
namespace {

constexpr std::size_t kNotInHeap = static_cast<std::size_t>(-1);
constexpr std::size_t kEventsPerTurn = 128;

// What epoll hands back: the descriptor, and which of its registrations.
std::uint64_t tag(int fd, std::uint32_t generation) {
  return static_cast<std::uint64_t>(generation) << 32 | static_cast<std::uint32_t>(fd);
}

}  // namespace

struct Reactor::Impl {
  // One per descriptor number. The generation tells an event that was collected
  // for an earlier registration of the same number from one for this.
  struct Registration {
    Handler* handler = nullptr;
    std::uint32_t generation = 0;
  };

  UniqueFd epoll;
  UniqueFd wake;   // eventfd: post() and stop()
  UniqueFd alarm;  // timerfd, for `alarm_due` at the latest
  Clock::time_point alarm_due = Clock::time_point::max();
  std::vector<Registration> registrations;

  std::vector<Timer*> heap;  // binary, earliest first
  std::size_t timers = 0;    // alive; the heap has room for all of them
  Timer* firing = nullptr;   // whose callback runs; null once it is destroyed

  std::vector<std::function<void()>> every_turn;
  std::vector<TurnEnd*> turn_ends;     // scheduled
  std::vector<TurnEnd*> running_ends;  // taken from turn_ends for this turn; null = destroyed
  std::size_t turn_end_count = 0;      // alive; both have room for all of them

  std::vector<std::shared_ptr<void>> kept;

  std::mutex mutex;  // guards `posted`
  std::vector<std::function<void()>> posted;
  std::atomic<bool> stopping = false;

  void place(std::size_t index, Timer* timer) {
    heap[index] = timer;
    timer->heap_index_ = index;
  }

  void sift_up(std::size_t index) {
    Timer* timer = heap[index];
    while (index > 0 && timer->due_ < heap[(index - 1) / 2]->due_) {
      place(index, heap[(index - 1) / 2]);
      index = (index - 1) / 2;
    }
    place(index, timer);
  }

  void sift_down(std::size_t index) {
    Timer* timer = heap[index];
    for (std::size_t child; (child = 2 * index + 1) < heap.size(); index = child) {
      if (child + 1 < heap.size() && heap[child + 1]->due_ < heap[child]->due_) ++child;
      if (timer->due_ <= heap[child]->due_) break;
      place(index, heap[child]);
    }
    place(index, timer);
  }

  void take_out(Timer& timer) {
    const std::size_t index = timer.heap_index_;
    if (index == kNotInHeap) return;
    timer.heap_index_ = kNotInHeap;
    Timer* last = heap.back();
    heap.pop_back();
    if (last == &timer) return;
    place(index, last);
    sift_up(index);
    sift_down(last->heap_index_);
  }

  // The timeout for epoll_wait. One in milliseconds would have the kernel set up
  // and take down a timer for each request served; the alarm is set when the
  // next timer is due earlier than it, which those that are armed again and
  // again, and later each time, never are. It may ring for nobody.
  int timeout() {
    if (!turn_ends.empty()) return 0;
    if (heap.empty() || heap.front()->due_ >= alarm_due) return -1;
    const auto left = std::max(heap.front()->due_ - Clock::now(), Clock::duration(1));
    const auto seconds = std::chrono::floor<std::chrono::seconds>(left);
    itimerspec when = {};
    when.it_value.tv_sec = seconds.count();
    when.it_value.tv_nsec = std::chrono::nanoseconds(left - seconds).count();
    if (::timerfd_settime(alarm.get(), 0, &when, nullptr) == 0) alarm_due = heap.front()->due_;
    return -1;
  }

  void on_alarm() {
    std::uint64_t ignored;
    (void)!::read(alarm.get(), &ignored, sizeof ignored);
    alarm_due = Clock::time_point::max();
  }

  // Only what is due now: a timer that re-arms itself with zero waits for the
  // next turn.
  void run_timers() {
    const auto now = Clock::now();
    while (!heap.empty() && heap.front()->due_ <= now) {
      Timer* timer = heap.front();
      take_out(*timer);
      // The callback may destroy the timer, and must not thereby destroy the
      // function that is running.
      std::function<void()> callback = std::move(timer->callback_);
      firing = timer;
      callback();
      if (firing != nullptr) timer->callback_ = std::move(callback);
      firing = nullptr;
    }
  }

  void run_posted() {
    std::vector<std::function<void()>> tasks;
    {
      const std::lock_guard lock(mutex);
      tasks.swap(posted);
    }
    for (auto& task : tasks) task();
  }

  void run_turn_ends() {
    running_ends.swap(turn_ends);
    for (std::size_t i = 0; i < running_ends.size(); ++i) {
      TurnEnd* end = running_ends[i];
      if (end == nullptr) continue;
      end->scheduled_ = false;
      std::function<void()> callback = std::move(end->callback_);  // as in run_timers()
      callback();
      if (running_ends[i] != nullptr) end->callback_ = std::move(callback);
    }
    running_ends.clear();
    for (std::size_t i = 0; i < every_turn.size(); ++i) every_turn[i]();
  }
};

Reactor::Timer::Timer(Reactor& reactor, std::function<void()> callback)
    : reactor_(reactor), callback_(std::move(callback)) {
  Impl& impl = *reactor_.impl_;
  impl.heap.reserve(++impl.timers);
}

Reactor::Timer::~Timer() {
  disarm();
  Impl& impl = *reactor_.impl_;
  --impl.timers;
  if (impl.firing == this) impl.firing = nullptr;
}

void Reactor::Timer::arm(Clock::duration after) {
  disarm();
  Impl& impl = *reactor_.impl_;
  due_ = Clock::now() + after;
  impl.heap.push_back(this);
  impl.sift_up(impl.heap.size() - 1);
}

void Reactor::Timer::disarm() { reactor_.impl_->take_out(*this); }

bool Reactor::Timer::armed() const { return heap_index_ != kNotInHeap; }

Reactor::TurnEnd::TurnEnd(Reactor& reactor, std::function<void()> callback)
    : reactor_(reactor), callback_(std::move(callback)) {
  Impl& impl = *reactor_.impl_;
  ++impl.turn_end_count;
  impl.turn_ends.reserve(impl.turn_end_count);
  // Growing it would pull it from under run_turn_ends(), which uses indices.
  impl.running_ends.reserve(impl.turn_end_count);
}

Reactor::TurnEnd::~TurnEnd() {
  Impl& impl = *reactor_.impl_;
  --impl.turn_end_count;
  std::replace(impl.running_ends.begin(), impl.running_ends.end(), this,
               static_cast<TurnEnd*>(nullptr));
  if (scheduled_) std::erase(impl.turn_ends, this);
}

void Reactor::TurnEnd::schedule() {
  if (scheduled_) return;
  scheduled_ = true;
  reactor_.impl_->turn_ends.push_back(this);
}

Reactor::Reactor() : impl_(std::make_unique<Impl>()) {}

Reactor::~Reactor() {
  // They have timers, and refer to the rest of the reactor.
  std::exchange(impl_->kept, {}).clear();
  std::exchange(impl_->posted, {}).clear();
}

Result<std::unique_ptr<Reactor>> Reactor::create() {
  std::unique_ptr<Reactor> reactor(new Reactor());
  Impl& impl = *reactor->impl_;
  impl.epoll.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!impl.epoll) return Status::from_errno(errno, "epoll_create1");
  impl.wake.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!impl.wake) return Status::from_errno(errno, "eventfd");
  impl.alarm.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!impl.alarm) return Status::from_errno(errno, "timerfd_create");
  for (const int fd : {impl.wake.get(), impl.alarm.get()}) {
    epoll_event event = {};
    event.events = EPOLLIN;
    event.data.u64 = tag(fd, 0);
    if (::epoll_ctl(impl.epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0)
      return Status::from_errno(errno, "epoll_ctl");
  }
  return reactor;
}

Status Reactor::add(int fd, std::uint32_t events, Handler& handler) {
  if (fd < 0) return Status::from_errno(EBADF, "epoll_ctl");
  auto& registrations = impl_->registrations;
  if (registrations.size() <= static_cast<std::size_t>(fd))
    registrations.resize(static_cast<std::size_t>(fd) + 1);
  Impl::Registration& registration = registrations[static_cast<std::size_t>(fd)];
  epoll_event event = {};
  event.events = events;
  event.data.u64 = tag(fd, registration.generation + 1);
  if (::epoll_ctl(impl_->epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0)
    return Status::from_errno(errno, "epoll_ctl");
  registration.handler = &handler;
  ++registration.generation;
  return Status();
}

Status Reactor::modify(int fd, std::uint32_t events) {
  epoll_event event = {};
  event.events = events;
  if (fd < 0 || static_cast<std::size_t>(fd) >= impl_->registrations.size())
    return Status::from_errno(ENOENT, "epoll_ctl");
  event.data.u64 = tag(fd, impl_->registrations[static_cast<std::size_t>(fd)].generation);
  if (::epoll_ctl(impl_->epoll.get(), EPOLL_CTL_MOD, fd, &event) != 0)
    return Status::from_errno(errno, "epoll_ctl");
  return Status();
}

void Reactor::remove(int fd) {
  if (fd < 0 || static_cast<std::size_t>(fd) >= impl_->registrations.size()) return;
  Impl::Registration& registration = impl_->registrations[static_cast<std::size_t>(fd)];
  if (registration.handler == nullptr) return;
  registration.handler = nullptr;
  ::epoll_ctl(impl_->epoll.get(), EPOLL_CTL_DEL, fd, nullptr);
}

void Reactor::post(std::function<void()> task) {
  bool first;
  {
    const std::lock_guard lock(impl_->mutex);
    first = impl_->posted.empty();
    impl_->posted.push_back(std::move(task));
  }
  if (first) (void)::eventfd_write(impl_->wake.get(), 1);
}

void Reactor::keep(std::shared_ptr<void> what) { impl_->kept.push_back(std::move(what)); }

void Reactor::let_go(const void* what) {
  const auto one =
      std::find_if(impl_->kept.begin(), impl_->kept.end(),
                   [what](const std::shared_ptr<void>& kept) { return kept.get() == what; });
  if (one == impl_->kept.end()) return;
  post([gone = std::move(*one)] {});
  impl_->kept.erase(one);
}

void Reactor::on_turn_end(std::function<void()> hook) {
  impl_->every_turn.push_back(std::move(hook));
}

void Reactor::run() {
  Impl& impl = *impl_;
  std::array<epoll_event, kEventsPerTurn> events;
  // exchange: a stop() that came before run() counts, and counts once.
  while (!impl.stopping.exchange(false)) {
    impl.run_turn_ends();
    const int count = ::epoll_wait(impl.epoll.get(), events.data(), static_cast<int>(events.size()),
                                   impl.timeout());
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      const auto fd = static_cast<std::uint32_t>(event.data.u64);
      if (fd == static_cast<std::uint32_t>(impl.wake.get())) {
        eventfd_t ignored;
        (void)::eventfd_read(impl.wake.get(), &ignored);
        continue;
      }
      if (fd == static_cast<std::uint32_t>(impl.alarm.get())) {
        impl.on_alarm();
        continue;
      }
      const Impl::Registration registration = impl.registrations[fd];
      if (registration.handler != nullptr && registration.generation == event.data.u64 >> 32)
        registration.handler->on_events(event.events);
    }
    impl.run_timers();
    impl.run_posted();
  }
}

void Reactor::stop() {
  impl_->stopping = true;
  (void)::eventfd_write(impl_->wake.get(), 1);
}

}  // namespace rmem
