// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <list>
#include <new>
#include <unordered_map>

#include "store/filter_kinds.hh"
#include "store/range.hh"

namespace rmem::store {
namespace {

// A block is kept only if nothing was changing it at any time between the start
// and the end of the read that brought it: such a read may have seen the bytes
// before. A write ends what is kept of its range when it starts, so neither its
// success nor its failure leaves anything old behind.
class CacheStore final : public FilterStore {
 public:
  CacheStore(const CacheFilter& how, Store& below)
      : FilterStore(below), block_(how.block), most_(how.size / how.block) {}

  void read(std::uint64_t offset, std::span<std::byte> into, Done done, Urgency urgency) override {
    if (!inside(offset, into.size(), geometry().size)) return done({EINVAL, 0});
    check_epoch(geometry().epoch);
    if (copy_kept(offset, into)) return done({0, geometry().epoch});
    const std::uint64_t first = offset / block_ * block_;
    const std::uint64_t end = std::min(geometry().size, round_up(offset + into.size()));
    Op& op = pool_.take();
    op.buffer.clear();
    if ((end - first) / block_ <= most_) op.allocate(end - first);
    if (op.buffer.empty()) {  // more than there is room for
      pool_.give(op);
      return below_.read(offset, into, done, urgency);
    }
    op.store = this;
    op.callback = done;
    op.offset = first;
    op.end = end;
    op.skip = offset - first;
    op.urgency = urgency;
    op.into = into;
    op.keep = std::none_of(changing_.begin(), changing_.end(),
                           [&](const Op* one) { return one->meets(op); });
    filling_.push_back(&op);
    below_.read(first, op.buffer,
                {[](void* ctx, const Outcome& outcome) {
                   auto& self = *static_cast<Op*>(ctx);
                   self.store->filled(self, outcome);
                 },
                 &op},
                urgency);
  }

  void write(std::uint64_t offset, std::span<const std::byte> from, Done done) override {
    if (!inside(offset, from.size(), geometry().size)) return done({EINVAL, 0});
    below_.write(offset, from, change(offset, from.size(), done));
  }

  void zero(std::uint64_t offset, std::uint64_t length, Done done) override {
    if (!inside(offset, length, geometry().size)) return done({EINVAL, 0});
    below_.zero(offset, length, change(offset, length, done));
  }

 private:
  struct Block {
    std::uint64_t index = 0;
    std::unique_ptr<std::byte[]> bytes;
  };
  // A read of whole blocks from below, or a change.
  struct Op {
    CacheStore* store = nullptr;
    Done callback;
    std::uint64_t offset = 0;
    std::uint64_t end = 0;
    std::uint64_t skip = 0;     // of the buffer's, before what was asked for
    std::span<std::byte> into;  // where that goes
    std::vector<std::byte> buffer;
    bool keep = false;
    Urgency urgency{};

    bool meets(const Op& other) const { return offset < other.end && other.offset < end; }
    void allocate(std::uint64_t length) {
      try {
        buffer.resize(length);
      } catch (const std::bad_alloc&) {
        buffer.clear();
      }
    }
  };

  std::uint64_t round_up(std::uint64_t at) const { return (at + block_ - 1) / block_ * block_; }

  bool copy_kept(std::uint64_t offset, std::span<std::byte> into) {
    const std::uint64_t first = offset / block_;
    const std::uint64_t last = (offset + into.size() - 1) / block_;
    if (last - first >= index_.size()) return false;
    for (std::uint64_t i = first; i <= last; ++i)
      if (!index_.contains(i)) return false;
    for (std::uint64_t done = 0; done < into.size();) {
      const auto kept = index_.find((offset + done) / block_)->second;
      const std::uint64_t within = (offset + done) % block_;
      const std::uint64_t count = std::min(into.size() - done, block_ - within);
      std::memcpy(into.data() + done, kept->bytes.get() + within, count);
      blocks_.splice(blocks_.begin(), blocks_, kept);
      done += count;
    }
    return true;
  }

  void filled(Op& op, const Outcome& outcome) {
    look_at(outcome);
    std::erase(filling_, &op);
    if (outcome.err == EIO && op.into.size() != op.buffer.size()) {
      // Perhaps it was one of the bytes that nobody asked for.
      const std::uint64_t offset = op.offset + op.skip;
      std::vector<std::byte>().swap(op.buffer);
      pool_.give(op);
      return below_.read(offset, op.into, op.callback, op.urgency);
    }
    if (outcome.err == 0) {
      std::memcpy(op.into.data(), op.buffer.data() + op.skip, op.into.size());
      if (op.keep) keep(op);
    }
    std::vector<std::byte>().swap(op.buffer);
    finish(op, outcome);
  }

  void keep(const Op& op) {
    try {
      for (std::uint64_t at = op.offset; at < op.end; at += block_) {
        const std::uint64_t i = at / block_;
        const std::uint64_t length = std::min(block_, op.end - at);
        if (index_.contains(i)) continue;
        Block block;
        if (index_.size() == most_) {
          index_.erase(blocks_.back().index);
          block = std::move(blocks_.back());
          blocks_.pop_back();
        } else {
          block.bytes = std::make_unique<std::byte[]>(block_);
        }
        block.index = i;
        std::memcpy(block.bytes.get(), op.buffer.data() + (at - op.offset), length);
        blocks_.push_front(std::move(block));
        index_.emplace(i, blocks_.begin());
      }
    } catch (const std::bad_alloc&) {
      // Then less is kept; what is not in both is of no use.
      forget_all();
    }
  }

  Done change(std::uint64_t offset, std::uint64_t length, Done done) {
    Op& op = pool_.take();
    op.store = this;
    op.callback = done;
    op.offset = offset;
    op.end = offset + length;
    for (Op* fill : filling_)
      if (fill->meets(op)) fill->keep = false;
    const std::uint64_t first = offset / block_;
    const std::uint64_t last = (op.end - 1) / block_;
    if (last - first < index_.size()) {
      for (std::uint64_t i = first; i <= last; ++i)
        if (const auto kept = index_.find(i); kept != index_.end()) forget(kept->second);
    } else {
      for (auto kept = blocks_.begin(); kept != blocks_.end();) {
        const auto one = kept++;
        if (one->index >= first && one->index <= last) forget(one);
      }
    }
    changing_.push_back(&op);
    return {[](void* ctx, const Outcome& outcome) {
              auto& self = *static_cast<Op*>(ctx);
              std::erase(self.store->changing_, &self);
              self.store->look_at(outcome);
              self.store->finish(self, outcome);
            },
            &op};
  }

  void finish(Op& op, const Outcome& outcome) {
    const Done done = op.callback;
    pool_.give(op);
    done(outcome);
  }

  // Once the store was lost, or has lost something, it may hold other bytes.
  void look_at(const Outcome& outcome) {
    if (outcome.err == EAGAIN || outcome.err == ESTALE) forget_all();
    if (outcome.err == 0) check_epoch(geometry().epoch);
  }

  void check_epoch(std::uint64_t epoch) {
    if (std::exchange(epoch_, epoch) != epoch) forget_all();
  }

  void forget(std::list<Block>::iterator block) {
    index_.erase(block->index);
    blocks_.erase(block);
  }

  void forget_all() {
    index_.clear();
    blocks_.clear();
    for (Op* fill : filling_) fill->keep = false;
  }

  const std::uint64_t block_;
  const std::uint64_t most_;  // blocks
  std::uint64_t epoch_ = 0;
  std::list<Block> blocks_;  // the last used one in front
  std::unordered_map<std::uint64_t, std::list<Block>::iterator> index_;
  OpPool<Op> pool_;
  std::vector<Op*> filling_, changing_;  // under way
};

}  // namespace

std::unique_ptr<Store> make_filter(const CacheFilter& how, Store& below) {
  return std::make_unique<CacheStore>(how, below);
}

}  // namespace rmem::store
