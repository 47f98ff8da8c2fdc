// SPDX-License-Identifier: MIT
// The machines of a simulation: one clock, which stands still while anything happens
// and jumps to the next event when nothing does; chance out of one seed; a disk that
// loses what was not flushed.
//
// It takes the place of a few calls of the C library (clock_gettime, epoll_wait,
// timerfd_settime, getrandom, pwrite, fdatasync) and of two parts of the programs
// (base/workers.cc, store/local_epoch.cc), so that all else is what is delivered.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/reactor.hh"

namespace rmem::sim {

using namespace std::chrono_literals;
using Time = std::chrono::nanoseconds;

// Chance. One stream for all, so that a seed is a run.
class Chance {
 public:
  explicit Chance(std::uint64_t seed) : state_(seed * 2 + 1) {}
  std::uint64_t next() {  // splitmix64
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  std::uint64_t below(std::uint64_t n) { return next() % n; }
  bool one_in(std::uint64_t n) { return below(n) == 0; }
  Time between(Time from, Time to) {
    return from + Time(below(static_cast<std::uint64_t>((to - from).count()) + 1));
  }

 private:
  std::uint64_t state_;
};

// One at a time in a process, while a simulation runs.
class Host {
 public:
  Host(std::uint64_t seed, std::string disk_file);
  ~Host();
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  static Host* current();

  Chance chance;
  Time now{1h};
  // A sum of all that happened, in order: two runs of one seed have the same.
  std::uint64_t trace = 0;
  void note(std::uint64_t what) { trace = (trace ^ what) * 0x100000001b3 + (trace >> 29); }
  std::uint64_t turns = 0;

  // --- the server's disk
  // It may fail, each so many-th call by chance; 0: it does not.
  std::uint64_t write_fails_one_in = 0, flush_fails_one_in = 0;
  int write_error = 5;
  // How long jobs take there.
  Time job_most{2ms};
  // The machine is reset: of each page that was not flushed, the old or the new stays.
  void reset_disk();
  std::vector<std::byte> read_disk() const;
  // Another life of the server's machine or program; what local_epoch() hashes.
  std::uint64_t life = 1;

  // --- one failure
  // The n-th call of a kind (from 1) by the programs fails, and none before or after;
  // the simulation's own calls do not count.
  enum class Call { kDescriptor, kSocket, kFile, kMemory };
  void fail(Call kind, std::uint64_t nth) {
    failing_ = kind;
    nth_ = nth;
  }
  std::uint64_t calls(Call kind) const { return calls_[static_cast<int>(kind)]; }
  bool has_failed() const { return failing_ && calls(*failing_) >= nth_; }
  // For the calls that are replaced: has this one to fail?
  bool fails(Call kind) {
    if (safe_depth_ != 0) return false;
    return ++calls_[static_cast<int>(kind)] == nth_ && failing_ == kind;
  }
  // While it lives, calls are the simulation's; or, within that, the programs'.
  class Safe {
   public:
    Safe() : depth_(current()->safe_depth_++) {}
    ~Safe() {
      if (current() != nullptr) current()->safe_depth_ = depth_;
    }
    Safe(const Safe&) = delete;
    Safe& operator=(const Safe&) = delete;

   private:
    int depth_;
  };
  class Exposed {
   public:
    Exposed() : depth_(std::exchange(current()->safe_depth_, 0)) {}
    ~Exposed() { current()->safe_depth_ = depth_; }
    Exposed(const Exposed&) = delete;
    Exposed& operator=(const Exposed&) = delete;

   private:
    int depth_;
  };

  // --- for the calls that are replaced
  bool is_disk(int fd) const;
  void flushed();         // what is there is safe
  void lost_unflushed();  // a flush has failed, and the kernel drops the pages

 private:
  void mix(bool maybe_keep);
  std::optional<Call> failing_;
  std::uint64_t nth_ = 0;
  std::uint64_t calls_[4] = {};
  int safe_depth_ = 1;  // until the world begins
  std::string disk_file_;
  std::uint64_t disk_inode_ = 0;
  std::vector<std::byte> safe_;
};

}  // namespace rmem::sim
