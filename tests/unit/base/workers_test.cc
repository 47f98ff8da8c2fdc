// SPDX-License-Identifier: MIT
#include "base/workers.hh"

#include <gtest/gtest.h>

#include <future>
#include <string>

namespace rmem {
namespace {

struct Counting : Workers::Job {
  Reactor* reactor = nullptr;
  int* left = nullptr;
  std::thread::id ran_on{};
  int result = 0;
};

TEST(Workers, RunElsewhereAndReportHere) {
  auto reactor = std::move(Reactor::create()).value();
  auto workers = std::move(Workers::create(*reactor, 2)).value();
  std::vector<Counting> jobs(100);
  int left = static_cast<int>(jobs.size());
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    Counting& job = jobs[i];
    job.reactor = reactor.get();
    job.left = &left;
    job.result = static_cast<int>(i);
    job.run = [](Workers::Job& base) {
      auto& self = static_cast<Counting&>(base);
      self.ran_on = std::this_thread::get_id();
      self.result *= 2;
    };
    job.done = [](Workers::Job& base) {
      auto& self = static_cast<Counting&>(base);
      if (--*self.left == 0) self.reactor->stop();
    };
    workers->submit(job);
  }
  reactor->run();
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    EXPECT_EQ(jobs[i].result, static_cast<int>(2 * i));
    EXPECT_NE(jobs[i].ran_on, std::this_thread::get_id());
  }
}

TEST(Workers, OthersGoBeforeJobsThatCanWaitButNotForEver) {
  auto reactor = std::move(Reactor::create()).value();
  std::string order;     // the only worker's, until it has ended
  std::size_t over = 0;  // ours
  struct Named : Workers::Job {
    std::string* order = nullptr;
    std::size_t* over = nullptr;
    Reactor* reactor = nullptr;
    char name = 0;
  };
  struct Gate : Workers::Job {
    std::promise<void> reached, open;
  } gate;
  gate.run = [](Workers::Job& base) {
    auto& self = static_cast<Gate&>(base);
    self.reached.set_value();
    self.open.get_future().wait();
  };
  gate.done = [](Workers::Job&) {};
  std::vector<Named> jobs(23);
  auto workers = std::move(Workers::create(*reactor, 1)).value();
  workers->submit(gate);
  gate.reached.get_future().wait();
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    const bool later = i < 3;
    jobs[i].order = &order;
    jobs[i].over = &over;
    jobs[i].reactor = reactor.get();
    jobs[i].name = later ? 'l' : 's';
    jobs[i].run = [](Workers::Job& base) {
      auto& self = static_cast<Named&>(base);
      *self.order += self.name;
    };
    jobs[i].done = [](Workers::Job& base) {
      auto& self = static_cast<Named&>(base);
      if (++*self.over == 23) self.reactor->stop();
    };
    workers->submit(jobs[i], later ? Workers::When::kLater : Workers::When::kSoon);
  }
  gate.open.set_value();
  reactor->run();
  workers.reset();
  EXPECT_EQ(order,
            "sssssssl"
            "sssssssl"
            "ssssssl");
}

TEST(Workers, EndWithJobsStillWaiting) {
  auto reactor = std::move(Reactor::create()).value();
  std::vector<Workers::Job> jobs(50);
  auto workers = std::move(Workers::create(*reactor, 1)).value();
  for (auto& job : jobs) {
    job.run = [](Workers::Job&) {};
    job.done = [](Workers::Job&) { ADD_FAILURE() << "reported after the end"; };
    workers->submit(job);
  }
  workers.reset();
  reactor->stop();
  reactor->run();
}

}  // namespace
}  // namespace rmem
