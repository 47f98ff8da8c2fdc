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
  kRandom,      // pages far from each other, in no order; none is there
  kResident,    // every page, in order; all are there, none is mapped
  kWrite,       // a store to every page, in order; all are there, mapped and clean
};
inline constexpr Case kCases[] = {Case::kSequential, Case::kRandom, Case::kResident, Case::kWrite};

// "sequential", "random", ...
std::string_view case_name(Case which);

// Not thread-safe. Of prepare(), run() and check(), only run() is on the clock.
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
  // Accesses the pages: all of them, in order, unless the case is kRandom.
  virtual Status run(Case which, std::span<const std::uint32_t> pages) = 0;
  // Whether a page that run() has accessed holds what it has to.
  virtual Status check(std::uint32_t page) = 0;

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

  Status run(Case which, std::span<const std::uint32_t> pages) override;
  Status check(std::uint32_t page) override;

 protected:
  // mmap(2), shared for a file and private for none.
  Status map(int fd, bool writable);
  std::span<std::byte> memory() const { return memory_; }
  // The page tables forget the memory; what is behind it stays in a file, and
  // is gone where there is none.
  Status unmap_pages();
  Status touch_all();

 private:
  std::span<std::byte> memory_;
};

// Raw TCP: a stream, or a request and its answer at a time.
Result<std::unique_ptr<Peer>> tcp_peer(const transport::Address& server, std::uint64_t size);

// userfaultfd, with threads that handle its events, each with a connection of
// its own. `unit`: bytes fetched for a fault. The first store to a page is
// noticed by write-protection (4 KiB, whatever the unit).
Result<std::unique_ptr<Peer>> uffd_peer(const std::string& name, const transport::Address& server,
                                        std::uint64_t size, std::size_t unit, unsigned handlers);

// The floor of anything that maps memory: anonymous memory of this machine.
Result<std::unique_ptr<Peer>> anonymous_peer(std::uint64_t size);

// The floor of anything that maps a file: one in memory.
Result<std::unique_ptr<Peer>> tmpfs_peer(std::uint64_t size);

// A region of rmem: `path` is its node or its file in rmemfs. It has to hold
// the pattern, in exactly `size` bytes.
Result<std::unique_ptr<Peer>> rmem_peer(const std::string& path, std::uint64_t size);

}  // namespace rmem::bench
