// SPDX-License-Identifier: MIT
#include "store/file.hh"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace rmem::store {
namespace {

// Where a copy less is worth looking where the bytes are.
constexpr std::uint64_t kViewMin = 64 << 10;
constexpr std::uint64_t kViewMost = 8 << 20;
// Of address space there are 128 TiB.
constexpr std::uint64_t kMapMost = std::uint64_t{8} << 40;
constexpr std::uint64_t kPage = 4096;

// Of a mapping, those that the bytes lie in.
std::span<std::byte> whole_pages(std::span<const std::byte> bytes) {
  const std::size_t in_front = reinterpret_cast<std::uintptr_t>(bytes.data()) % kPage;
  return {const_cast<std::byte*>(bytes.data()) - in_front,
          (in_front + bytes.size() + kPage - 1) / kPage * kPage};
}

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
  store->map(info, options.read_only);
  struct statfs system = {};
  store->in_memory_ = ::fstatfs(store->fd_.get(), &system) == 0 && system.f_type == TMPFS_MAGIC;
  return store;
}

FileStore::FileStore(Workers& workers, UniqueFd fd, FileFacts facts, const FileOptions& options)
    : WorkerStore(workers, facts.size, derive_identity(facts), options.read_only),
      fd_(std::move(fd)),
      facts_(std::move(facts)),
      sync_(options.sync != nullptr ? options.sync : ::fdatasync) {}

FileStore::~FileStore() {
  if (map_ != nullptr) ::munmap(const_cast<std::byte*>(map_), facts_.size);
}

void FileStore::map(const struct stat& info, bool read_only) {
  if (facts_.size < kViewMin || facts_.size > kMapMost) return;
  void* const map = ::mmap(nullptr, facts_.size, PROT_READ, MAP_SHARED, fd_.get(), 0);
  if (map == MAP_FAILED) return;
  // A daemon has its memory locked (base/process.hh), and would keep all that it has ever sent.
  if (::munlock(map, facts_.size) != 0) {
    ::munmap(map, facts_.size);
    return;
  }
  map_ = static_cast<const std::byte*>(map);
  (void)::madvise(map, facts_.size, MADV_DONTDUMP);
  // Else it says of everything that it is.
  told_ = !read_only || info.st_uid == ::geteuid();
}

bool FileStore::can_view(std::uint64_t length) const {
  return map_ != nullptr && length >= kViewMin && length <= kViewMost;
}

std::span<const std::byte> FileStore::mapped(std::uint64_t offset, std::uint64_t length) {
  // Zeros need not travel, so they have to be looked at.
  std::array<std::byte, 64> first;
  const std::size_t got = read_at_once(offset, first);
  const auto is_zero = [](std::byte one) { return one == std::byte{0}; };
  if (got == first.size() && std::ranges::all_of(first, is_zero)) return {};
  return {map_ + offset, length};
}

bool FileStore::resident(std::span<const std::byte> bytes) {
  // Of a file that was made shorter it is not, whatever mincore(2) says.
  std::byte last;
  if (read_at_once(static_cast<std::uint64_t>(&bytes.back() - map_), {&last, 1}) == 0) return false;
  if (in_memory_) return true;
  if (!told_) return false;
  const auto pages = whole_pages(bytes);
  std::array<unsigned char, kViewMost / kPage + 1> in_memory;
  const auto end = in_memory.begin() + static_cast<std::ptrdiff_t>(pages.size() / kPage);
  return ::mincore(pages.data(), pages.size(), in_memory.data()) == 0 &&
         std::all_of(in_memory.begin(), end, [](unsigned char page) { return page & 1; });
}

int FileStore::do_populate(std::span<const std::byte> bytes) {
  const auto pages = whole_pages(bytes);
  return ::madvise(pages.data(), pages.size(), MADV_POPULATE_READ) == 0 ? 0 : errno;
}

std::size_t FileStore::read_at_once(std::uint64_t offset, std::span<std::byte> into) {
  const iovec whole = {into.data(), into.size()};
  const auto at = static_cast<off_t>(offset);
  // tmpfs refuses RWF_NOWAIT and, unless it was swapped out, never waits.
  const ssize_t cached = in_memory_ ? ::pread(fd_.get(), into.data(), into.size(), at)
                                    : ::preadv2(fd_.get(), &whole, 1, at, RWF_NOWAIT);
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
