// SPDX-License-Identifier: MIT
// A way to the bytes of another machine, or of this one, that can be measured.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "base/result.hh"
#include "pattern.hh"
#include "transport/address.hh"

namespace rmem::bench {

// What is measured, in nanoseconds a page.
enum class Case {
  kSequential,  // every page, in order; none is there
  kRandom,      // pages far from each other, in no order, one at a time; none is there
  kRandom4,     // the same by 4 threads at once
  kRandom64,    // the same by 64 threads at once
  kResident,    // every page, in order; all are there, none is mapped
  kWarm,        // every page, in order; all are there and mapped
  kWrite,       // a store to every page, in order; all are there, mapped and clean
  kOverwrite,   // whole pages, in order, until durable; none is there. By write(2) to a file
  kRewrite,     // whole pages, in order, until durable; all are there, mapped and clean
};
inline constexpr Case kCases[] = {Case::kSequential, Case::kRandom,    Case::kRandom4,
                                  Case::kRandom64,   Case::kResident,  Case::kWarm,
                                  Case::kWrite,      Case::kOverwrite, Case::kRewrite};
inline constexpr unsigned kMostThreads = 64;

// "sequential", "random", ...
std::string_view case_name(Case which);
// How many threads access the pages.
unsigned threads_of(Case which);
inline bool is_random(Case which) {
  return which == Case::kRandom || which == Case::kRandom4 || which == Case::kRandom64;
}
// Whether all pages are there before it begins.
inline bool finds_all(Case which) {
  return which == Case::kResident || which == Case::kWarm || which == Case::kWrite ||
         which == Case::kRewrite;
}
// Whether new bytes have to become durable.
inline bool overwrites(Case which) { return which == Case::kOverwrite || which == Case::kRewrite; }

// Of its calls only begin(), access() and overwrite() are on the clock. None but access() may be
// called by several threads at once.
class Peer {
 public:
  Peer(std::string name, std::uint64_t size) : name_(std::move(name)), size_(size) {}
  virtual ~Peer() = default;
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  const std::string& name() const { return name_; }
  std::uint64_t size() const { return size_; }

  // Whether the case means anything here.
  virtual bool can(Case which) const = 0;
  // Brings about what the case supposes.
  virtual Status prepare(Case which) = 0;
  // What goes on in the background from here on, if anything does.
  virtual Status begin(Case) { return Status(); }
  // Accesses the pages: all from the first on, in order, unless the case is a random one. Of
  // several threads each is a `thread` of its own, below kMostThreads.
  virtual Status access(Case which, std::span<const std::uint32_t> pages, unsigned thread) = 0;
  // Replaces whole pages from the first on; returns when the other side has them.
  virtual Status overwrite(Case which, std::span<const std::byte> bytes);
  // Whether a page that was accessed holds what fill_pattern() makes for `expected`.
  virtual Status check(std::uint32_t page, std::uint64_t expected) = 0;

 private:
  std::string name_;
  std::uint64_t size_;
};

// A peer whose bytes are memory, of which the derived class knows how it
// becomes cold, mapped or clean. Accesses to it are plain loads and stores.
class MappedPeer : public Peer {
 public:
  using Peer::Peer;
  ~MappedPeer() override;

  Status access(Case which, std::span<const std::uint32_t> pages, unsigned thread) override;
  Status overwrite(Case which, std::span<const std::byte> bytes) override;
  Status check(std::uint32_t page, std::uint64_t expected) override;

 protected:
  // mmap(2), shared for a file and private for none. The file stays the caller's, and open.
  Status map(int fd, bool writable);
  std::span<std::byte> memory() const { return memory_; }
  // The page tables forget the memory; what is behind it stays in a file, and
  // is gone where there is none.
  Status unmap_pages();
  Status touch_all();
  // What was stored becomes durable.
  virtual Status flush() { return Status(); }

 private:
  std::span<std::byte> memory_;
  int file_ = -1;
};

// Raw TCP: a stream, or a request and its answer at a time.
Result<std::unique_ptr<Peer>> tcp_peer(const transport::Address& server, std::uint64_t size);

struct UffdOptions {
  std::size_t unit = kPage;  // bytes fetched for a fault
  unsigned handlers = 4;     // threads that handle events, each with a connection of its own
  bool fill = false;         // the rest is fetched in the background, in order
};

// userfaultfd. The first store to a page is noticed by write-protection (4 KiB, whatever
// the unit); dirty pages are pushed in runs.
Result<std::unique_ptr<Peer>> uffd_peer(const std::string& name, const transport::Address& server,
                                        std::uint64_t size, const UffdOptions& options);

// The floor of anything that maps memory: anonymous memory of this machine.
Result<std::unique_ptr<Peer>> anonymous_peer(std::uint64_t size);

// The floor of anything that maps a file: one in memory.
Result<std::unique_ptr<Peer>> tmpfs_peer(std::uint64_t size);

// A file or a block device that holds the pattern in its first `size` bytes, by way of the page
// cache: whatever is behind it, network block device or FUSE.
Result<std::unique_ptr<Peer>> file_peer(const std::string& name, const std::string& path,
                                        std::uint64_t size);

// A region of rmem: `path` is its node or its file in rmemfs. It has to hold
// the pattern, in exactly `size` bytes. With the control socket of its rmemd all of it
// is pulled from begin() on.
Result<std::unique_ptr<Peer>> rmem_peer(const std::string& path, std::uint64_t size,
                                        const std::string& pull_by = {});

}  // namespace rmem::bench
