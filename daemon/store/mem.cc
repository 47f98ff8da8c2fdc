// SPDX-License-Identifier: MIT
#include "store/mem.hh"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "store/range.hh"

namespace rmem::store {

MemStore::MemStore(std::uint64_t size)
    : geometry_{
          .size = size, .read_only = false, .identity = uuid_random(), .epoch = random_u64()} {}

void MemStore::read(std::uint64_t offset, std::span<std::byte> into, Done done,
                    Urgency /*urgency*/) {
  if (!inside(offset, into.size(), geometry_.size)) return done({EINVAL, 0});
  while (!into.empty()) {
    const std::uint64_t within = offset % kChunk;
    const std::size_t count = std::min<std::uint64_t>(into.size(), kChunk - within);
    if (const auto chunk = chunks_.find(offset / kChunk); chunk != chunks_.end())
      std::memcpy(into.data(), chunk->second.get() + within, count);
    else
      std::memset(into.data(), 0, count);
    into = into.subspan(count);
    offset += count;
  }
  done({0, geometry_.epoch});
}

void MemStore::write(std::uint64_t offset, std::span<const std::byte> from, Done done) {
  if (!inside(offset, from.size(), geometry_.size)) return done({EINVAL, 0});
  try {
    while (!from.empty()) {
      const std::uint64_t within = offset % kChunk;
      const std::size_t count = std::min<std::uint64_t>(from.size(), kChunk - within);
      auto& chunk = chunks_[offset / kChunk];
      if (!chunk) chunk = std::make_unique<std::byte[]>(kChunk);
      std::memcpy(chunk.get() + within, from.data(), count);
      from = from.subspan(count);
      offset += count;
    }
  } catch (const std::bad_alloc&) {
    // The entry may exist without its bytes.
    std::erase_if(chunks_, [](const auto& entry) { return !entry.second; });
    return done({ENOSPC, 0});
  }
  done({0, geometry_.epoch});
}

void MemStore::zero(std::uint64_t offset, std::uint64_t length, Done done) {
  if (!inside(offset, length, geometry_.size)) return done({EINVAL, 0});
  const std::uint64_t end = offset + length;
  const auto clear = [&](std::uint64_t index, std::byte* chunk) {
    const std::uint64_t first = index * kChunk;
    const std::uint64_t from = std::max(first, offset);
    const std::uint64_t to = std::min(first + kChunk, end);
    if (from >= to) return false;
    if (to - from == kChunk) return true;  // frees it
    std::memset(chunk + (from - first), 0, to - from);
    return false;
  };
  if (length / kChunk > chunks_.size()) {
    // A terabyte of nothing is zeroed at once.
    std::erase_if(chunks_, [&](auto& entry) { return clear(entry.first, entry.second.get()); });
  } else {
    for (std::uint64_t index = offset / kChunk; index * kChunk < end; ++index)
      if (const auto chunk = chunks_.find(index);
          chunk != chunks_.end() && clear(index, chunk->second.get()))
        chunks_.erase(chunk);
  }
  done({0, geometry_.epoch});
}

void MemStore::flush(Done done) { done({0, geometry_.epoch}); }

}  // namespace rmem::store
