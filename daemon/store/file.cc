// SPDX-License-Identifier: MIT
#include "store/file.hh"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>

#include <cerrno>

namespace rmem::store {
namespace {

Uuid derive_identity(const FileFacts& facts) {
  const std::string text = facts.path + '\0' + std::to_string(facts.inode) + '\0' + facts.birth +
                           '\0' + std::to_string(facts.size);
  return uuid_from(text);
}

// The new file is complete or not there: it gets its name only with its size.
Status create_file(const std::string& path, std::uint64_t size) {
  const auto slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const std::string temporary = path + ".rmem-new";
  UniqueFd fd(::open(temporary.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd) return Status::from_errno(errno, path);
  Status status;
  if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0 || ::fsync(fd.get()) != 0 ||
      ::rename(temporary.c_str(), path.c_str()) != 0) {
    status = Status::from_errno(errno, "cannot create " + path);
    ::unlink(temporary.c_str());
    return status;
  }
  const UniqueFd parent(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!parent || ::fsync(parent.get()) != 0) return Status::from_errno(errno, directory);
  return Status();
}

}  // namespace

Result<std::unique_ptr<FileStore>> FileStore::open(Workers& workers, const std::string& path,
                                                   const FileOptions& options) {
  const int flags = (options.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY;
  UniqueFd fd(::open(path.c_str(), flags));
  if (!fd && errno == ENOENT && options.size && !options.read_only) {
    if (const Status created = create_file(path, *options.size); !created.ok()) return created;
    fd.reset(::open(path.c_str(), flags));
  }
  if (!fd) {
    const int err = errno;
    const Status status = Status::from_errno(err, path);
    return err == ENOENT ? status.with_hint("create it, or give ?size= to have it created")
                         : status;
  }
  struct stat info = {};
  if (::fstat(fd.get(), &info) != 0) return Status::from_errno(errno, path);
  if (!S_ISREG(info.st_mode)) return Status(Code::kFailed, path + ": not a regular file");
  auto facts = facts_of(fd.get(), path);
  if (!facts) return facts.status();
  if (const Status same =
          expect_same(path, "size", facts->size, options.size.value_or(facts->size));
      !same.ok())
    return same;
  if (facts->size == 0)
    return Status(Code::kFailed, path + ": is empty", "give ?size= and a path that does not exist");
  std::unique_ptr<FileStore> store(
      new FileStore(workers, std::move(fd), *std::move(facts), options));
  struct statfs system = {};
  store->in_memory_ = ::fstatfs(store->fd_.get(), &system) == 0 && system.f_type == TMPFS_MAGIC;
  return store;
}

FileStore::FileStore(Workers& workers, UniqueFd fd, FileFacts facts, const FileOptions& options)
    : WorkerStore(workers, facts.size, derive_identity(facts), options.read_only),
      fd_(std::move(fd)),
      facts_(std::move(facts)),
      sync_(options.sync != nullptr ? options.sync : ::fdatasync) {}

FileStore::~FileStore() = default;

std::size_t FileStore::read_at_once(std::uint64_t offset, std::span<std::byte> into) {
  const iovec whole = {into.data(), into.size()};
  // tmpfs refuses RWF_NOWAIT and, unless it was swapped out, never waits.
  const ssize_t cached =
      ::preadv2(fd_.get(), &whole, 1, static_cast<off_t>(offset), in_memory_ ? 0 : RWF_NOWAIT);
  return cached > 0 ? static_cast<std::size_t>(cached) : 0;
}

int FileStore::do_read(std::uint64_t offset, std::span<std::byte> into) {
  return read_all(fd_.get(), into, offset);
}

int FileStore::do_write(std::uint64_t offset, std::span<const std::byte> from) {
  return write_all(fd_.get(), from, offset);
}

int FileStore::do_zero(std::uint64_t offset, std::uint64_t length) {
  return zero_range(fd_.get(), offset, length);
}

int FileStore::do_flush() { return sync_(fd_.get()) == 0 ? 0 : errno; }

}  // namespace rmem::store
