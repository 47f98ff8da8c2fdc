// SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <cerrno>

#include "store/filter_kinds.hh"

namespace rmem::store {
namespace {

class DelayStore final : public FilterStore {
 public:
  DelayStore(const DelayFilter& how, Store& below, Reactor& reactor)
      : FilterStore(below), how_(how), timer_(reactor, [this] { release(); }) {}

  void read(std::uint64_t offset, std::span<std::byte> into, Done done, Urgency urgency) override {
    below_.read(offset, into, later(Operation::kRead, done), urgency);
  }
  void write(std::uint64_t offset, std::span<const std::byte> from, Done done) override {
    below_.write(offset, from, later(Operation::kWrite, done));
  }
  void zero(std::uint64_t offset, std::uint64_t length, Done done) override {
    below_.zero(offset, length, later(Operation::kZero, done));
  }
  void flush(Done done) override { below_.flush(later(Operation::kFlush, done)); }

 private:
  using Clock = Reactor::Clock;

  struct Op {
    DelayStore* store = nullptr;
    Done callback;
    std::chrono::milliseconds delay{0};
    Clock::time_point due{};
    std::uint64_t number = 0;  // of those that are due at once, the first comes first
    Outcome outcome;
  };

  static bool comes_after(const Op* a, const Op* b) {
    return a->due != b->due ? a->due > b->due : a->number > b->number;
  }

  Done later(Operation operation, Done done) {
    const auto index = static_cast<std::size_t>(operation);
    const DelayFilter::Range& range = how_.ranges[index];
    if (range.to.count() == 0) return done;
    Op& op = pool_.take();
    op.store = this;
    op.callback = done;
    const auto choices = static_cast<std::uint64_t>((range.to - range.from).count()) + 1;
    const std::uint64_t drawn = chance(how_.seed, operation, ++counts_[index]) % choices;
    op.delay = range.from + std::chrono::milliseconds(drawn);
    return {[](void* ctx, const Outcome& outcome) {
              auto& done_below = *static_cast<Op*>(ctx);
              done_below.outcome = outcome;
              // That the connection is lost must not be heard after it is back.
              const bool lost = outcome.err == EAGAIN || outcome.err == ESTALE;
              lost ? done_below.store->complete(done_below) : done_below.store->hold(done_below);
            },
            &op};
  }

  void complete(Op& op) {
    const Done done = op.callback;
    const Outcome outcome = op.outcome;
    pool_.give(op);
    done(outcome);
  }

  void hold(Op& op) {
    op.due = Clock::now() + op.delay;
    op.number = ++held_so_far_;
    held_.push_back(&op);
    std::push_heap(held_.begin(), held_.end(), comes_after);
    if (held_.front() == &op) timer_.arm(op.delay);
  }

  void release() {
    const auto now = Clock::now();
    while (!held_.empty() && held_.front()->due <= now) {
      std::pop_heap(held_.begin(), held_.end(), comes_after);
      Op& op = *held_.back();
      held_.pop_back();
      complete(op);
    }
    if (!held_.empty()) timer_.arm(std::max(held_.front()->due - Clock::now(), Clock::duration(0)));
  }

  const DelayFilter how_;
  Reactor::Timer timer_;  // for the first of held_
  OpPool<Op> pool_;
  std::vector<Op*> held_;  // a heap, the first one due in front
  std::uint64_t held_so_far_ = 0;
  std::array<std::uint64_t, 4> counts_{};
};

}  // namespace

std::unique_ptr<Store> make_filter(const DelayFilter& how, Store& below, Reactor& reactor) {
  return std::make_unique<DelayStore>(how, below, reactor);
}

}  // namespace rmem::store
