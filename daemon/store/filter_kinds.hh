// SPDX-License-Identifier: MIT
// How filters are made; for filter.cc and the filters themselves.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "store/filter.hh"

namespace rmem::store {

// Passes everything on.
class FilterStore : public Store {
 public:
  explicit FilterStore(Store& below) : below_(below) {}
  const Geometry& geometry() const override { return below_.geometry(); }
  void read(std::uint64_t offset, std::span<std::byte> into, Done done, Urgency urgency) override {
    below_.read(offset, into, done, urgency);
  }
  void write(std::uint64_t offset, std::span<const std::byte> from, Done done) override {
    below_.write(offset, from, done);
  }
  void zero(std::uint64_t offset, std::uint64_t length, Done done) override {
    below_.zero(offset, length, done);
  }
  void flush(Done done) override { below_.flush(done); }

 protected:
  Store& below_;
};

// Records of operations under way; allocates only when there are more than ever
// before.
template <class Op>
class OpPool {
 public:
  Op& take() {
    if (free_.empty()) {
      all_.push_back(std::make_unique<Op>());
      free_.reserve(all_.size());
      free_.push_back(all_.back().get());
    }
    Op& op = *free_.back();
    free_.pop_back();
    return op;
  }
  void give(Op& op) { free_.push_back(&op); }

 private:
  std::vector<std::unique_ptr<Op>> all_;
  std::vector<Op*> free_;
};

// A number that depends on its arguments alone, for chances that repeat.
std::uint64_t chance(std::uint64_t seed, Operation operation, std::uint64_t nth);

std::unique_ptr<Store> make_filter(const ErrorFilter& how, Store& below);
std::unique_ptr<Store> make_filter(const DelayFilter& how, Store& below, Reactor& reactor);
std::unique_ptr<Store> make_filter(const StatsFilter& how, Store& below, const std::string& name);
std::unique_ptr<Store> make_filter(const CacheFilter& how, Store& below);

}  // namespace rmem::store
