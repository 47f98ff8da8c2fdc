// SPDX-License-Identifier: MIT
// A store in a directory: a file for each chunk, and a manifest.
#pragma once

#include <array>
#include <atomic>
#include <bitset>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>

#include "base/result.hh"
#include "base/unique_fd.hh"
#include "base/workers.hh"
#include "store/dir_manifest.hh"
#include "store/local_fs.hh"
#include "store/worker_store.hh"

namespace rmem::store {

struct DirOptions {
  static constexpr std::uint64_t kDefaultChunk = 1 << 20;

  bool read_only = false;
  // Create the store with this size if there is none; one that exists must have
  // it. Unset: it must exist.
  std::optional<std::uint64_t> size;
  // Likewise; unset: kDefaultChunk for a new one.
  std::optional<std::uint64_t> chunk;
  // Returns as fdatasync(2) does; gets chunks, directories and the manifest, on
  // workers' threads. For tests, whose disks do not fail.
  std::function<int(int fd)> sync;
};

// Only chunks that hold something have a file, and only the manifest says which
// those are: a file that it does not list is a left-over, a listed one that is
// missing or of another length is EIO. docs/stores.md has the layout, the order
// in which things reach the disk, and why that is right.
//
// Locks: a slot's, then mutex_. Nobody holds two slots. System calls are made
// under a slot's lock, none under mutex_.
class DirStore final : public WorkerStore {
 public:
  // kNotFound, kPermission; kBusy: somebody else has it open (readers stand each
  // other); kCorrupt: another size or chunk than asked for, or a damaged
  // manifest; kUsage: no such size or chunk is possible; kFailed: something else
  // is there.
  static Result<std::unique_ptr<DirStore>> open(Workers& workers, const std::string& path,
                                                const DirOptions& options);
  ~DirStore() override;

  // With the identity, which is that of the manifest *in this directory*: a copy
  // is another store.
  const FileFacts& facts() const { return facts_; }
  std::uint64_t chunk() const { return chunk_; }

  // Lets others have the directory. It can only be read from now on.
  void let_go();

 private:
  static constexpr std::size_t kSlots = 256;
  static constexpr std::uint64_t kNoChunk = ~std::uint64_t{0};

  // The lock of all chunks whose number is the slot's modulo kSlots, and the
  // file of the one that was used last. Exclusive for whoever changes a chunk or
  // the slot, shared for readers. A dirty file stays open until it was synced:
  // whoever opens it later may not hear of a failed write-back.
  struct Slot {
    std::shared_mutex lock;
    std::uint64_t chunk = kNoChunk;
    UniqueFd fd;
    bool dirty = false;  // also cleared under the shared lock, by the flush
  };

  DirStore(Workers& workers, UniqueFd dir, FileFacts facts, DirManifest manifest,
           const DirOptions& options);

  std::size_t read_at_once(std::uint64_t offset, std::span<std::byte> into) override;
  int do_read(std::uint64_t offset, std::span<std::byte> into) override;
  int do_write(std::uint64_t offset, std::span<const std::byte> from) override;
  int do_zero(std::uint64_t offset, std::uint64_t length) override;
  int do_flush() override;

  int read_chunk(std::uint64_t chunk, std::uint64_t within, std::span<std::byte> into);
  int write_chunk(std::uint64_t chunk, std::uint64_t within, std::span<const std::byte> from);
  int zero_chunk(std::uint64_t chunk, std::uint64_t within, std::uint64_t length);

  Slot& slot_of(std::uint64_t chunk) { return slots_[chunk % kSlots]; }
  std::uint64_t length_of(std::uint64_t chunk) const;
  bool is_written(std::uint64_t chunk) const;
  void mark(std::uint64_t chunk, bool written);
  // With the slot's lock. ENODATA: the chunk is listed, but missing or short.
  int open_chunk(Slot& slot, std::uint64_t chunk);
  int create_chunk(std::uint64_t chunk, UniqueFd& fd);
  int missing(std::uint64_t chunk);
  void empty(Slot& slot);

  int sync(int fd, bool directory);
  int sync_chunks();
  int sync_directories(const std::bitset<4096>& groups);
  Status write_manifest(const DirManifest& manifest);
  void remove_unlisted();
  void sweep();

  const UniqueFd dir_;  // holds the lock
  const FileFacts facts_;
  const std::uint64_t chunk_;
  const std::function<int(int fd)> sync_;
  std::array<Slot, kSlots> slots_;
  std::atomic<bool> complained_ = false;
  DirManifest manifest_;  // as it was last written, or is being; the flush's

  mutable std::mutex mutex_;  // guards what follows
  Bitmap written_;            // what holds something: the truth
  Bitmap kept_;               // what the manifest on the disk may list
  Bitmap present_;            // what has, or may have, a file of ours
  bool changed_ = false;      // written_, since the last flush began
  std::bitset<4096> grown_;   // groups with files whose names may not be durable
  int sync_error_ = 0;        // of a chunk whose slot was needed for another
};

}  // namespace rmem::store
