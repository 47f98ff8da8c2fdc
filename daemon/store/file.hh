// SPDX-License-Identifier: MIT
// A store in a regular file.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/result.hh"
#include "base/unique_fd.hh"
#include "base/workers.hh"
#include "store/local_fs.hh"
#include "store/worker_store.hh"

namespace rmem::store {

struct FileOptions {
  bool read_only = false;
  // Create the file, sparse, with this size if there is none; one that exists
  // must have it. Unset: it must exist, and its size is what it is.
  std::optional<std::uint64_t> size;
  // Returns as fdatasync(2) does. For tests, whose disks do not fail.
  int (*sync)(int fd) = nullptr;
};

class FileStore final : public WorkerStore {
 public:
  // kNotFound, kPermission; kCorrupt: it has another size than asked for;
  // kFailed: not a regular file, or empty.
  static Result<std::unique_ptr<FileStore>> open(Workers& workers, const std::string& path,
                                                 const FileOptions& options);
  ~FileStore() override;

  bool can_view(std::uint64_t length) const override;

  const FileFacts& facts() const { return facts_; }
  // At first derived from the facts. Whoever keeps identities sets the one that
  // he has kept.
  void set_identity(const Uuid& identity) { geometry_.identity = identity; }

 private:
  FileStore(Workers& workers, UniqueFd fd, FileFacts facts, const FileOptions& options);
  void map(const struct stat& info, bool read_only);
  std::size_t read_at_once(std::uint64_t offset, std::span<std::byte> into) override;
  std::span<const std::byte> mapped(std::uint64_t offset, std::uint64_t length) override;
  bool resident(std::span<const std::byte> bytes) override;
  int do_populate(std::span<const std::byte> bytes) override;
  int do_read(std::uint64_t offset, std::span<std::byte> into) override;
  int do_write(std::uint64_t offset, std::span<const std::byte> from) override;
  int do_zero(std::uint64_t offset, std::uint64_t length) override;
  int do_flush() override;

  UniqueFd fd_;
  FileFacts facts_;
  bool in_memory_ = false;
  const std::byte* map_ = nullptr;  // all of it; null: not
  bool told_ = false;               // by mincore(2), what is in memory
  int (*const sync_)(int fd);
};

}  // namespace rmem::store
