// SPDX-License-Identifier: MIT
// The event loop: file descriptors, timers and calls from other threads.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "base/result.hh"

namespace rmem {

// One epoll instance, level-triggered, driven by the thread that calls run().
// Everything but post() and stop() is for that thread only. Neither waiting for
// events nor re-arming an existing timer allocates.
class Reactor {
 public:
  using Clock = std::chrono::steady_clock;

  // Told about a descriptor's events. Not owned; must outlive its registration.
  class Handler {
   public:
    virtual void on_events(std::uint32_t epoll_events) = 0;

   protected:
    ~Handler() = default;
  };

  // A one-shot timer, re-armable; disarmed by its destruction. The callback may
  // re-arm or destroy the timer.
  class Timer {
   public:
    Timer(Reactor& reactor, std::function<void()> callback);
    ~Timer();
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;
    void arm(Clock::duration after);
    void disarm();
    bool armed() const;

   private:
    friend class Reactor;
    Reactor& reactor_;
    std::function<void()> callback_;
    Clock::time_point due_{};
    std::size_t heap_index_ = static_cast<std::size_t>(-1);
  };

  // Something to be done at the end of a turn of the loop, before it sleeps:
  // send what the turn has gathered, for instance. Runs once per schedule(),
  // however often that was called; ended by its destruction. The callback may
  // schedule itself again (for the next turn) or destroy its TurnEnd.
  class TurnEnd {
   public:
    TurnEnd(Reactor& reactor, std::function<void()> callback);
    ~TurnEnd();
    TurnEnd(const TurnEnd&) = delete;
    TurnEnd& operator=(const TurnEnd&) = delete;
    void schedule();

   private:
    friend class Reactor;
    Reactor& reactor_;
    std::function<void()> callback_;
    bool scheduled_ = false;
  };

  static Result<std::unique_ptr<Reactor>> create();
  ~Reactor();

  // `events` as for epoll_ctl. A descriptor is registered at most once. After
  // remove() the handler is not called again, not even for events that the
  // current turn of the loop has already collected.
  Status add(int fd, std::uint32_t events, Handler& handler);
  Status modify(int fd, std::uint32_t events);
  void remove(int fd);

  // Runs `task` on the loop's thread, soon. Thread-safe.
  void post(std::function<void()> task);

  // Called once at the end of every turn of the loop, for as long as the reactor
  // lives; see TurnEnd for what comes and goes.
  void on_turn_end(std::function<void()> hook);

  // Owns what has been begun and has yet to end when everybody else has forgotten it (bytes
  // that have to go out yet): until let_go(), soon after which it is destroyed and not from
  // within, or until the reactor is.
  void keep(std::shared_ptr<void> what);
  void let_go(const void* what);

  // Until stop(). SIGINT/SIGTERM are the caller's business (signalfd).
  void run();
  void stop();  // thread-safe

 private:
  Reactor();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace rmem
