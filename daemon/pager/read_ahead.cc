// SPDX-License-Identifier: MIT
#include "pager/read_ahead.hh"

#include <algorithm>
#include <tuple>

namespace rmem::pager {

ReadAhead::ReadAhead(std::uint64_t size, std::uint64_t chunk, std::uint64_t most)
    : size_(size), chunk_(chunk), most_(most) {}

ReadAhead::Window ReadAhead::on_miss(std::uint64_t offset, std::uint32_t tid) {
  const std::uint64_t chunk = chunk_of(offset);
  const std::uint64_t step = jumped(chunk, tid);
  for (Stream& s : streams_) {
    if (!s.used) continue;
    if (s.next == chunk) {
      // The step that was expected: the reader walks, or has run past a window
      // whose mark it never touched.
      s.tid = tid;
      s.last_use = ++uses_;
      s.next = chunk + s.step;
      if (++s.steps < (far_ ? kStepsFar : kSteps)) return {};
      return advance(s, s.next);
    }
    if (s.window != 0 && chunk == s.begin && s.marked != chunk) {
      // It ran past the last window before the daemon saw that it had entered it,
      // and asked for this chunk itself; the others of the window are under way.
      s.last_use = ++uses_;
      return {};
    }
    if (ahead_of(s, chunk)) {
      // Fetched ahead and gone before it was used: memory is short, or the
      // kernel gave the fetch up. Begin anew, with small windows.
      s = begin(chunk, tid);
      return {};
    }
  }
  Stream& s = replace(tid);
  s = begin(chunk, tid);
  if (step != 0) {
    s.step = step;
    s.steps = kSteps;
  } else if (!far_ || chunk != 0) {
    return {};
  }
  return advance(s, chunk + s.step);
}

ReadAhead::Stream ReadAhead::begin(std::uint64_t chunk, std::uint32_t tid) {
  Stream s;
  s.used = true;
  s.tid = tid;
  s.step = chunk_;
  s.next = chunk + chunk_;
  s.last_use = ++uses_;
  return s;
}

// How far the thread goes each time, or each second or third, if it has done so for long enough;
// else 0.
std::uint64_t ReadAhead::jumped(std::uint64_t chunk, std::uint32_t tid) {
  if (tid == 0) return 0;
  auto j = std::ranges::find(jumpers_, tid, &Jumper::tid);
  if (j == jumpers_.end()) {
    j = std::ranges::min_element(jumpers_, {}, &Jumper::last_use);
    *j = Jumper{.tid = tid};
  }
  std::uint64_t found = 0;
  for (std::size_t strides = 1; strides <= kStrides && found == 0; ++strides) {
    if (j->count < strides * kEqualSteps) break;
    const std::uint64_t step = chunk - j->ago(strides);
    bool equal = step != 0;
    for (std::size_t i = 1; i < kEqualSteps; ++i)
      equal &= j->ago(i * strides) - j->ago((i + 1) * strides) == step;
    if (equal) found = step;
  }
  j->misses[j->count++ % j->misses.size()] = chunk;
  j->last_use = ++uses_;
  return found;
}

// Is the chunk in the stream's latest window?
bool ReadAhead::ahead_of(const Stream& s, std::uint64_t chunk) const {
  if (!s.used || s.window == 0) return false;
  const auto way = static_cast<std::int64_t>(chunk - s.begin);
  const auto step = static_cast<std::int64_t>(s.step);
  return way % step == 0 && way / step >= 0 && static_cast<std::uint64_t>(way / step) < s.chunks;
}

ReadAhead::Window ReadAhead::on_hit(std::uint64_t offset) {
  const std::uint64_t chunk = chunk_of(offset);
  for (Stream& s : streams_) {
    if (!s.used || s.marked != chunk) continue;
    s.last_use = ++uses_;
    return advance(s, s.next);
  }
  return {};
}

void ReadAhead::on_late(std::uint64_t offset) {
  for (Stream& s : streams_)
    if (ahead_of(s, chunk_of(offset))) s.late = true;
}

ReadAhead::Window ReadAhead::after(const Window& window) {
  for (Stream& s : streams_) {
    if (s.used && s.window != 0 && s.begin == window.offset) return advance(s, s.next);
  }
  return {};
}

void ReadAhead::give_up(const Window& window) {
  for (Stream& s : streams_) {
    if (s.used && s.window != 0 && s.begin == window.offset) s = Stream{};
  }
}

void ReadAhead::reset() {
  streams_.fill(Stream{});
  jumpers_.fill(Jumper{});
}

bool ReadAhead::take_mark(std::uint64_t offset) {
  const std::uint64_t chunk = chunk_of(offset);
  for (Stream& s : streams_) {
    if (!s.mark_wanted || !ahead_of(s, chunk)) continue;
    s.mark_wanted = false;
    s.marked = chunk;
    return true;
  }
  return false;
}

std::uint64_t ReadAhead::next_window(const Stream& s) const {
  // Two chunks at least: one to be used, one on its way.
  const std::uint64_t shortest = 2 * chunk_;
  const std::uint64_t longest = std::max(shortest, most_);
  std::uint64_t window = s.window;
  if (window == 0 && far_ && s.step == chunk_)
    window = s.steps == 0 ? kEnough : kFirstFar;
  else if (window == 0)
    window = std::min(kFirstChunks * chunk_, kMostFirst);
  else if (window < kEnough)
    window = std::min(4 * window, kEnough);
  else if (s.late)
    window *= far_ ? 4 : 2;
  return std::clamp(window, shortest, longest);
}

ReadAhead::Window ReadAhead::advance(Stream& s, std::uint64_t from) {
  s.window = next_window(s);
  s.late = false;
  s.marked = kNone;
  if (from >= size_) {  // the reader is at the end
    s = Stream{};
    return {};
  }
  s.begin = from;
  // Whole chunks, so that `next` is where the reader will miss.
  const bool back = static_cast<std::int64_t>(s.step) < 0;
  const std::uint64_t left = back ? from / -s.step + 1 : (size_ - from + s.step - 1) / s.step;
  s.chunks = std::min(s.window / chunk_, left);
  const bool sequential = s.step == chunk_;
  if (!sequential) s.chunks = std::min(s.chunks, kMostPieces);
  s.next = from + s.chunks * s.step;
  s.mark_wanted = true;
  if (sequential) return {s.begin, std::min(s.next, size_) - s.begin};
  return {s.begin, chunk_, s.step, s.chunks};
}

ReadAhead::Stream& ReadAhead::replace(std::uint32_t tid) {
  // A thread that jumps replaces its own unproven stream, so that a random
  // reader cannot drive out the sequential ones.
  const auto worth = [tid](const Stream& s) {
    const bool own = tid != 0 && s.tid == tid;
    return std::tuple(s.used, s.window != 0, !own, s.last_use);
  };
  return *std::min_element(streams_.begin(), streams_.end(),
                           [&](const Stream& a, const Stream& b) { return worth(a) < worth(b); });
}

}  // namespace rmem::pager
