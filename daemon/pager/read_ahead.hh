// SPDX-License-Identifier: MIT
// Which chunks a reader will want next.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace rmem::pager {

// Recognises sequential and strided readers of one region, several at a time, and says how
// far ahead of each to fetch. Pure policy: it knows offsets, nothing else.
//
// A reader counts as sequential once it has missed three chunks in a row, or two where a
// round trip takes long: there to be wrong costs no time, and to hesitate costs round trips. Who
// misses the region's first chunk there counts at once. Until then, and for a reader that jumps
// about, nothing is fetched ahead. Each window is four times as long as the one before, as far as
// kEnough; far away the first is a long one. From there on it grows only for a reader that has to
// wait for what is under way to him: the distance is then what the link takes. The first chunk of a
// window is filled with a mark; when the reader gets there, the kernel tells (a hit) and the next
// window is fetched while the reader still has this one to go. (After Linux' mm/readahead.c.)
//
// A thread whose last four misses were equally far from each other, forwards or backwards, is
// strided; that three places are so by chance is no rare thing. So is one of which that is true of
// every second or third miss: it walks through two or three arrays, or several columns of one. Its
// windows have the chunks that it will touch, and no others.
class ReadAhead {
 public:
  // Bytes: of the first window, within kFirstChunks of them; where growing ends for who never
  // waits, and for all.
  static constexpr std::uint64_t kMostFirst = std::uint64_t{1} << 20;
  static constexpr std::uint64_t kFirstChunks = 4;
  static constexpr std::uint64_t kFirstFar = std::uint64_t{8} << 20;
  static constexpr std::uint64_t kEnough = std::uint64_t{4} << 20;
  static constexpr std::uint64_t kMaxWindow = std::uint64_t{16} << 20;

  static constexpr std::uint64_t kMostPieces = 64;

  // Ranges of whole chunks, clipped to the region, each `step` behind the one before (modulo
  // 2^64: it may be in front of it); empty: fetch nothing.
  struct Window {
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::uint64_t step = 0;
    std::uint64_t pieces = 1;
    bool empty() const { return length == 0; }
  };

  // `size` of the region and `chunk` (a power of two) in bytes. No window is
  // longer than `most` bytes, unless that is less than two chunks.
  ReadAhead(std::uint64_t size, std::uint64_t chunk, std::uint64_t most = kMaxWindow);

  // Whether a round trip to the store takes long.
  void set_far(bool far) { far_ = far; }

  // Thread `tid` (0: unknown) waits for the chunk at `offset`, which nobody had
  // asked for.
  Window on_miss(std::uint64_t offset, std::uint32_t tid);
  // The marked chunk at `offset` was used for the first time.
  Window on_hit(std::uint64_t offset);
  // Somebody has come to wait for the chunk at `offset`, which was being fetched ahead.
  void on_late(std::uint64_t offset);
  // All of `window` turned out to be resident or under way, so that no mark will
  // tell; what comes after it?
  Window after(const Window& window);
  // `window` cannot be fetched ahead; forget its reader.
  void give_up(const Window& window);
  // Forget all readers.
  void reset();

  // Shall the chunk at `offset`, fetched ahead, carry the mark? True once per
  // window.
  bool take_mark(std::uint64_t offset);

 private:
  struct Stream {
    bool used = false;
    std::uint32_t tid = 0;
    unsigned steps = 0;            // misses in a row, each where it was expected
    std::uint64_t step = 0;        // from one chunk to the next, modulo 2^64
    std::uint64_t next = 0;        // where the reader's next miss would be
    std::uint64_t window = 0;      // bytes of the latest window; 0: none yet
    std::uint64_t begin = 0;       // of the latest window; it ends at `next`,
    std::uint64_t chunks = 0;      // after so many
    bool late = false;             // its reader has waited for it
    bool mark_wanted = false;      // the latest window has no marked chunk yet
    std::uint64_t marked = kNone;  // the chunk that carries the mark
    std::uint64_t last_use = 0;
  };
  static constexpr std::uint64_t kNone = ~std::uint64_t{0};
  static constexpr std::size_t kStrides = 3;     // of one thread, in turn
  static constexpr std::size_t kEqualSteps = 3;  // until there is one
  // A thread that jumps, and its latest misses.
  struct Jumper {
    std::uint32_t tid = 0;
    std::uint64_t count = 0;
    std::array<std::uint64_t, kStrides * kEqualSteps>
        misses{};  // that of number n at n modulo this
    std::uint64_t last_use = 0;

    // The miss so many ago; 1: the latest.
    std::uint64_t ago(std::uint64_t n) const { return misses[(count - n) % misses.size()]; }
  };

  std::uint64_t next_window(const Stream& stream) const;
  static constexpr unsigned kSteps = 2;
  static constexpr unsigned kStepsFar = 1;

  bool ahead_of(const Stream& stream, std::uint64_t chunk) const;
  std::uint64_t jumped(std::uint64_t chunk, std::uint32_t tid);
  Stream begin(std::uint64_t chunk, std::uint32_t tid);
  Stream& replace(std::uint32_t tid);
  Window advance(Stream& stream, std::uint64_t from);
  std::uint64_t chunk_of(std::uint64_t offset) const { return offset & ~(chunk_ - 1); }

  std::uint64_t size_;
  std::uint64_t chunk_;
  std::uint64_t most_;
  bool far_ = false;
  std::uint64_t uses_ = 0;
  std::array<Stream, 8> streams_{};
  std::array<Jumper, 8> jumpers_{};
};

}  // namespace rmem::pager
