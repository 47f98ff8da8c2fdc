// SPDX-License-Identifier: MIT
// A store in a regular file.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/reactor.hh"
#include "base/result.hh"
#include "base/unique_fd.hh"
#include "base/workers.hh"
#include "store/store.hh"

namespace rmem::store {

struct FileOptions {
  bool read_only = false;
  // Create the file, sparse, with this size if there is none; one that exists
  // must have it. Unset: it must exist, and its size is what it is.
  std::optional<std::uint64_t> size;
  // Returns as fdatasync(2) does. For tests, whose disks do not fail.
  int (*sync)(int fd) = nullptr;
};

// What tells one file from another that later takes its name.
struct FileFacts {
  std::string path;  // real path
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::string birth;  // "seconds.nanoseconds"; empty if the file system keeps none
  std::uint64_t size = 0;
};

// Reads of cached pages are answered at once; everything that may wait for the
// disk is done by `workers`. Writes and zeros are applied one after the other in
// the order of the calls; flushes that meet share one fdatasync.
//
// Epoch: of the host's boot and this process, and a new one after each failed
// fdatasync: the kernel tells about a failed write-back only once and may have
// dropped the pages, so a later fdatasync that succeeds says nothing about them.
class FileStore final : public Store {
 public:
  // kNotFound, kPermission; kCorrupt: it has another size than asked for;
  // kFailed: not a regular file, or empty. `workers` must outlive the last
  // operation, but may go before the store.
  static Result<std::unique_ptr<FileStore>> open(Workers& workers, const std::string& path,
                                                 const FileOptions& options);
  ~FileStore() override;

  const FileFacts& facts() const { return facts_; }
  // At first derived from the facts. Whoever keeps identities sets the one that
  // he has kept.
  void set_identity(const Uuid& identity) { geometry_.identity = identity; }

  const Geometry& geometry() const override { return geometry_; }
  void read(std::uint64_t offset, std::span<std::byte> into, Done done) override;
  void write(std::uint64_t offset, std::span<const std::byte> from, Done done) override;
  void zero(std::uint64_t offset, std::uint64_t length, Done done) override;
  void flush(Done done) override;

 private:
  // One operation under way; from a free list, so that none is allocated while
  // there are no more than before.
  struct Op : Workers::Job {
    enum class Kind { kRead, kWrite, kZero } kind{};
    FileStore* store = nullptr;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::byte* bytes = nullptr;  // of a write: not modified
    Done callback;
    std::uint64_t epoch = 0;  // when it was handed to a worker
    int err = 0;
  };
  // Handed to a worker as one; belongs to the reactor otherwise.
  struct Batch : Workers::Job {
    FileStore* store = nullptr;
    std::vector<Op*> ops;
  };
  struct Flush : Workers::Job {
    FileStore* store = nullptr;
    std::vector<Done> callbacks;
    int err = 0;
  };

  FileStore(Workers& workers, UniqueFd fd, FileFacts facts, const FileOptions& options);
  Op& take_op(Op::Kind kind, std::uint64_t offset, std::uint64_t length, std::byte* bytes,
              Done done);
  void finish(Op& op);
  void modify(Op& op);
  void start_batch();
  void start_flush();
  void new_epoch();
  // On a worker: 0 or an errno.
  int do_read(const Op& op) const;
  int do_write(const Op& op) const;
  int do_zero(const Op& op) const;

  Workers& workers_;
  UniqueFd fd_;
  FileFacts facts_;
  int (*const sync_)(int fd);
  Geometry geometry_;
  std::uint64_t failed_flushes_ = 0;

  std::vector<std::unique_ptr<Op>> ops_;
  std::vector<Op*> free_;
  std::vector<Op*> waiting_;  // writes and zeros behind the batch
  Batch batch_;
  bool batch_running_ = false;
  std::vector<Done> flushes_waiting_;
  Flush flush_;
  bool flush_running_ = false;
};

}  // namespace rmem::store
