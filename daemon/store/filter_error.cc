// SPDX-License-Identifier: MIT
#include <array>

#include "store/filter_kinds.hh"
#include "store/range.hh"

namespace rmem::store {
namespace {

class ErrorStore final : public FilterStore {
 public:
  ErrorStore(const ErrorFilter& how, Store& below) : FilterStore(below), how_(how) {}

  void read(std::uint64_t offset, std::span<std::byte> into, Done done, Urgency urgency) override {
    if (fails(Operation::kRead, offset, into.size())) return done({how_.err, 0});
    below_.read(offset, into, done, urgency);
  }
  void write(std::uint64_t offset, std::span<const std::byte> from, Done done) override {
    if (fails(Operation::kWrite, offset, from.size())) return done({how_.err, 0});
    below_.write(offset, from, done);
  }
  void zero(std::uint64_t offset, std::uint64_t length, Done done) override {
    if (fails(Operation::kZero, offset, length)) return done({how_.err, 0});
    below_.zero(offset, length, done);
  }
  void flush(Done done) override {
    if (fails(Operation::kFlush, 0, 1)) return done({how_.err, 0});
    below_.flush(done);
  }

 private:
  // Ranges that the store refuses are not counted.
  bool fails(Operation operation, std::uint64_t offset, std::uint64_t length) {
    if (!inside(offset, length, geometry().size)) return false;
    const auto index = static_cast<std::size_t>(operation);
    const ErrorFilter::Rate& rate = how_.rates[index];
    const std::uint64_t nth = ++counts_[index];
    if (rate.every > 0) return nth % rate.every == 0;
    // 53 bits: what a double holds.
    const auto drawn = static_cast<double>(chance(how_.seed, operation, nth) >> 11) * 0x1p-53;
    return drawn < rate.probability;
  }

  const ErrorFilter how_;
  std::array<std::uint64_t, 4> counts_{};
};

}  // namespace

std::unique_ptr<Store> make_filter(const ErrorFilter& how, Store& below) {
  return std::make_unique<ErrorStore>(how, below);
}

}  // namespace rmem::store
