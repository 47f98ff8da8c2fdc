// SPDX-License-Identifier: MIT
// A few threads for system calls that may block.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/reactor.hh"
#include "base/unique_fd.hh"

namespace rmem {

// Runs jobs on its threads, in no promised order, and reports each on the
// reactor's thread. Submitting allocates nothing: the job is the caller's
// object and stays his, untouched, until it has been reported.
class Workers final : private Reactor::Handler {
 public:
  struct Job {
    void (*run)(Job& job) = nullptr;   // on a worker; must not throw
    void (*done)(Job& job) = nullptr;  // on the reactor's thread
    Job* next = nullptr;               // of Workers
  };

  static Result<std::unique_ptr<Workers>> create(Reactor& reactor, unsigned threads);
  // Waits for the jobs that are running; those that are not, and those not yet
  // reported, never are. Whoever owns jobs should have waited for them.
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // Jobs that can wait let the others go first, but for one in eight.
  enum class When { kSoon, kLater };
  void submit(Job& job, When when = When::kSoon);  // reactor's thread

 private:
  // First in, first out, linked through the jobs.
  struct Queue {
    Job* first = nullptr;
    Job* last = nullptr;
    void push(Job& job);
    Job* pop();
  };

  Workers(Reactor& reactor, UniqueFd event);
  static constexpr unsigned kSoonInARow = 7;  // while another waits

  void work();
  Job* next();
  void on_events(std::uint32_t events) override;

  Reactor& reactor_;
  UniqueFd event_;  // counts when `finished_` stops being empty
  std::vector<std::thread> threads_;

  std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  Queue soon_;
  Queue later_;
  unsigned overtaken_ = 0;  // the first of later_, so often
  Queue finished_;
  bool stopping_ = false;
};

}  // namespace rmem
