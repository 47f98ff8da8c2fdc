// SPDX-License-Identifier: MIT
#include "store/dir.hh"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <vector>

#include "base/bytes.hh"
#include "base/log.hh"

namespace rmem::store {
namespace {

const log::Source kDirLog("store");

constexpr char kManifest[] = "manifest";
constexpr char kNewManifest[] = "manifest.new";

// Chunks are kept in groups of 4096, a directory each.
constexpr std::uint64_t group_of(std::uint64_t chunk) { return chunk >> 12; }

// "0a3" and "0a3/0a3f1c".
struct ChunkName {
  char group[4];
  char file[11];
  explicit ChunkName(std::uint64_t chunk) {
    const auto number = static_cast<unsigned>(chunk) & 0xffffff;
    std::snprintf(group, sizeof group, "%03x", number >> 12);
    std::snprintf(file, sizeof file, "%03x/%06x", number >> 12, number);
  }
};

// The number that a name of so many hexadecimal digits stands for.
std::optional<std::uint64_t> number_of(std::string_view name, std::size_t digits) {
  if (name.size() != digits) return std::nullopt;
  std::uint64_t number = 0;
  for (const char c : name) {
    if ((c < '0' || c > '9') && (c < 'a' || c > 'f')) return std::nullopt;
    number = number << 4 | static_cast<unsigned>(c <= '9' ? c - '0' : c - 'a' + 10);
  }
  return number;
}

// Calls `each` with the names in a directory. 0 or an errno.
template <class Each>
int list(int at, const char* name, Each each) {
  UniqueFd fd(::openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  DIR* const dir = fd ? ::fdopendir(fd.get()) : nullptr;
  if (dir == nullptr) return errno;
  (void)fd.release();
  errno = 0;
  while (const dirent* entry = ::readdir(dir)) {
    const std::string_view one = entry->d_name;
    if (one != "." && one != "..") each(one);
    errno = 0;
  }
  const int err = errno;
  ::closedir(dir);
  return err;
}

// Still in its place, and as long as it was made.
bool intact(int fd, std::uint64_t length) {
  struct stat info = {};
  return ::fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_nlink > 0 &&
         static_cast<std::uint64_t>(info.st_size) == length;
}

// The parts of a range that lie in one chunk each, until one fails.
template <class Each>
int for_chunks(std::uint64_t offset, std::uint64_t length, std::uint64_t size, Each each) {
  for (std::uint64_t done = 0; done < length;) {
    const std::uint64_t within = (offset + done) % size;
    const std::uint64_t count = std::min(length - done, size - within);
    if (const int err = each((offset + done) / size, within, done, count); err != 0) return err;
    done += count;
  }
  return 0;
}

Result<DirManifest> read_manifest(int dir, const std::string& path) {
  const std::string name = path + "/" + kManifest;
  const UniqueFd fd(::openat(dir, kManifest, O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  struct stat info = {};
  if (!fd || ::fstat(fd.get(), &info) != 0) return Status::from_errno(errno, name);
  const auto most = static_cast<off_t>(DirManifest::kMaxChunks / 8 + 4096);
  std::vector<std::byte> bytes(static_cast<std::size_t>(std::min(info.st_size, most)));
  if (const int err = read_all(fd.get(), bytes, 0); err != 0) return Status::from_errno(err, name);
  auto manifest = DirManifest::decode(bytes);
  if (manifest) return manifest;
  const Status why = manifest.status().with_context(name + " cannot be used");
  return why.hint().empty() ? why.with_hint("restore it from a backup that is as old as the chunks")
                            : why;
}

// Written beside the old one, then renamed: at each moment there is one that is
// whole.
Status replace_manifest(int dir, const std::string& path, const DirManifest& manifest,
                        const std::function<int(int fd, bool directory)>& sync) {
  const std::string name = path + "/" + kManifest;
  const UniqueFd fd(::openat(dir, kNewManifest, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd) return Status::from_errno(errno, name);
  if (const int err = write_all(fd.get(), manifest.encode(), 0); err != 0)
    return Status::from_errno(err, name);
  if (sync(fd.get(), false) != 0 || ::renameat(dir, kNewManifest, dir, kManifest) != 0 ||
      sync(dir, true) != 0)
    return Status::from_errno(errno, name);
  return Status();
}

int sync_by(const std::function<int(int fd)>& test, int fd, bool directory) {
  if (test) return test(fd);
  return directory ? ::fsync(fd) : ::fdatasync(fd);
}

// A directory with nothing in it, or what is left of a creation that a crash
// ended.
Result<bool> is_fresh(int dir, const std::string& path) {
  bool fresh = true;
  const int err = list(dir, ".", [&](std::string_view name) { fresh &= name == kNewManifest; });
  if (err != 0) return Status::from_errno(err, path);
  return fresh;
}

Result<UniqueFd> open_directory(const std::string& path, bool make) {
  constexpr int kFlags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
  UniqueFd dir(::open(path.c_str(), kFlags));
  if (!dir && errno == ENOENT && make) {
    if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return Status::from_errno(errno, path);
    dir.reset(::open(path.c_str(), kFlags));
  }
  if (dir) return dir;
  const int err = errno;
  if (err == ENOTDIR) return Status(Code::kFailed, path + ": not a directory");
  const Status status = Status::from_errno(err, path);
  return err == ENOENT ? status.with_hint("give ?size= to have it created") : status;
}

}  // namespace

Result<std::unique_ptr<DirStore>> DirStore::open(Workers& workers, const std::string& path,
                                                 const DirOptions& options) {
  const bool may_make = options.size && !options.read_only;
  // Before a directory is made for nothing.
  if (may_make)
    if (auto made = DirManifest::make(*options.size, options.chunk.value_or(options.kDefaultChunk));
        !made)
      return made.status().with_context(path);
  auto dir = open_directory(path, may_make);
  if (!dir) return dir.status();
  if (::flock(dir->get(), (options.read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return Status::from_errno(errno, "cannot lock " + path);
    return Status(Code::kBusy, path + ": another program, or another region, uses this directory",
                  "end that one first; only readers can share it", EBUSY);
  }

  auto manifest = read_manifest(dir->get(), path);
  if (!manifest && manifest.status().err() == ENOENT) {
    auto fresh = is_fresh(dir->get(), path);
    if (!fresh) return fresh.status();
    if (!*fresh)
      return Status(Code::kFailed, path + ": holds something, but no manifest of a store",
                    "use a path that does not exist; if a store was there, restore its manifest");
    if (!may_make)
      return Status(Code::kNotFound, path + ": is empty", "give ?size= to have a store created",
                    ENOENT);
    manifest = DirManifest::make(*options.size, options.chunk.value_or(options.kDefaultChunk));
    const auto sync = [&](int fd, bool directory) { return sync_by(options.sync, fd, directory); };
    if (const Status made = replace_manifest(dir->get(), path, *manifest, sync); !made.ok())
      return made.with_context("cannot create a store");
    const UniqueFd parent(::openat(dir->get(), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!parent || sync(parent.get(), true) != 0) return Status::from_errno(errno, path + "/..");
  }
  if (!manifest) return manifest.status();
  for (const Status& same :
       {expect_same(path, "size", manifest->size, options.size.value_or(manifest->size)),
        expect_same(path, "chunk", manifest->chunk, options.chunk.value_or(manifest->chunk))})
    if (!same.ok()) return same;

  auto facts = facts_of(dir->get(), path);
  if (!facts) return facts.status();
  facts->size = manifest->size;
  facts->identity = uuid_from(uuid_to_string(manifest->uuid) + '\0' + std::to_string(facts->inode) +
                              '\0' + facts->birth);
  std::unique_ptr<DirStore> store(new DirStore(workers, std::move(dir).value(),
                                               std::move(facts).value(),
                                               std::move(manifest).value(), options));
  if (options.read_only) return store;
  // If a predecessor was killed just after it had renamed the manifest, the one
  // that we have read is not the one that a reset would leave; and what it does
  // not list is about to be removed.
  if (store->sync(store->dir_.get(), true) != 0) return Status::from_errno(errno, path);
  store->sweep();
  return store;
}

DirStore::DirStore(Workers& workers, UniqueFd dir, FileFacts facts, DirManifest manifest,
                   const DirOptions& options)
    : WorkerStore(workers, facts.size, *facts.identity, options.read_only),
      dir_(std::move(dir)),
      facts_(std::move(facts)),
      chunk_(manifest.chunk),
      sync_(options.sync),
      manifest_(std::move(manifest)),
      written_(manifest_.written),
      kept_(manifest_.written),
      present_(manifest_.written) {}

DirStore::~DirStore() = default;

void DirStore::let_go() {
  geometry_.read_only = true;
  (void)::flock(dir_.get(), LOCK_UN);
}

std::uint64_t DirStore::length_of(std::uint64_t chunk) const {
  return std::min(chunk_, geometry_.size - chunk * chunk_);
}

bool DirStore::is_written(std::uint64_t chunk) const {
  const std::lock_guard lock(mutex_);
  return written_.test(chunk);
}

void DirStore::mark(std::uint64_t chunk, bool written) {
  const std::lock_guard lock(mutex_);
  if (written_.test(chunk) == written) return;
  written ? written_.set(chunk) : written_.reset(chunk);
  changed_ = true;
}

// --- one chunk ---------------------------------------------------------------

int DirStore::open_chunk(Slot& slot, std::uint64_t chunk) {
  const bool written = is_written(chunk);
  if (slot.chunk == chunk) {
    if (intact(slot.fd.get(), length_of(chunk))) return 0;
    if (written) return missing(chunk);
  }
  empty(slot);
  UniqueFd fd;
  if (written) {
    const int flags = (geometry_.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOFOLLOW;
    fd.reset(::openat(dir_.get(), ChunkName(chunk).file, flags));
    if (!fd && errno != ENOENT) return errno;
    if (!fd || !intact(fd.get(), length_of(chunk))) return missing(chunk);
  } else if (const int err = create_chunk(chunk, fd); err != 0) {
    return err;
  }
  slot.fd = std::move(fd);
  slot.chunk = chunk;
  return 0;
}

// A file of zeros. What is found there may be the left-over of a crash, and is
// overwritten; or the manifest on the disk still lists it, then it was emptied
// by zero_chunk() and must not be short even for a moment.
int DirStore::create_chunk(std::uint64_t chunk, UniqueFd& fd) {
  bool kept;
  {
    const std::lock_guard lock(mutex_);
    kept = kept_.test(chunk);
    grown_.set(group_of(chunk));
    present_.set(chunk);
  }
  const ChunkName name(chunk);
  const int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | (kept ? 0 : O_TRUNC);
  fd.reset(::openat(dir_.get(), name.file, flags, 0600));
  if (!fd && errno == ENOENT) {
    if (::mkdirat(dir_.get(), name.group, 0700) != 0 && errno != EEXIST) return errno;
    fd.reset(::openat(dir_.get(), name.file, flags, 0600));
  }
  if (!fd) return errno;
  const std::uint64_t length = length_of(chunk);
  if (kept && intact(fd.get(), length)) return 0;
  // A listed one comes here only if it was damaged.
  if (kept && ::ftruncate(fd.get(), 0) != 0) return errno;
  return ::ftruncate(fd.get(), static_cast<off_t>(length)) == 0 ? 0 : errno;
}

int DirStore::missing(std::uint64_t chunk) {
  if (!complained_.exchange(true))
    kDirLog.error("{}/{}: missing, or not of {} bytes: reads of it fail, as of others like it",
                  facts_.path, ChunkName(chunk).file, length_of(chunk));
  return ENODATA;
}

// Makes room for another chunk.
void DirStore::empty(Slot& slot) {
  if (slot.dirty && sync(slot.fd.get(), false) != 0) {
    const std::lock_guard lock(mutex_);
    sync_error_ = errno;
  }
  slot.dirty = false;
  slot.fd.reset();
  slot.chunk = kNoChunk;
}

int DirStore::read_chunk(std::uint64_t chunk, std::uint64_t within, std::span<std::byte> into) {
  Slot& slot = slot_of(chunk);
  {
    const std::shared_lock lock(slot.lock);
    if (!is_written(chunk)) {
      std::fill(into.begin(), into.end(), std::byte{0});
      return 0;
    }
    if (slot.chunk == chunk) return read_all(slot.fd.get(), into, within);
  }
  const std::unique_lock lock(slot.lock);
  if (!is_written(chunk)) {
    std::fill(into.begin(), into.end(), std::byte{0});
    return 0;
  }
  if (const int err = open_chunk(slot, chunk); err != 0) return err;
  return read_all(slot.fd.get(), into, within);
}

int DirStore::write_chunk(std::uint64_t chunk, std::uint64_t within,
                          std::span<const std::byte> from) {
  if (all_zeros(from)) return zero_chunk(chunk, within, from.size());
  Slot& slot = slot_of(chunk);
  const std::unique_lock lock(slot.lock);
  if (const int err = open_chunk(slot, chunk); err != 0) return err;
  slot.dirty = true;
  const int err = write_all(slot.fd.get(), from, within);
  // After an error, too: some of it may be there.
  mark(chunk, true);
  return err;
}

int DirStore::zero_chunk(std::uint64_t chunk, std::uint64_t within, std::uint64_t length) {
  Slot& slot = slot_of(chunk);
  const std::unique_lock lock(slot.lock);
  if (!is_written(chunk)) return 0;
  const bool whole = length == length_of(chunk);
  const int err = open_chunk(slot, chunk);
  if (err != 0) {
    // The only way to get rid of what is missing.
    if (err == ENODATA && whole) {
      mark(chunk, false);
      return 0;
    }
    return err;
  }
  slot.dirty = true;
  if (const int failed = zero_range(slot.fd.get(), within, length); failed != 0) return failed;
  // The file stays until no manifest lists it.
  if (whole || (::lseek(slot.fd.get(), 0, SEEK_DATA) < 0 && errno == ENXIO)) mark(chunk, false);
  return 0;
}

// --- ranges ------------------------------------------------------------------

std::size_t DirStore::read_at_once(std::uint64_t offset, std::span<std::byte> into) {
  std::size_t have = 0;
  for_chunks(offset, into.size(), chunk_,
             [&](std::uint64_t chunk, std::uint64_t within, std::uint64_t at, std::uint64_t count) {
               Slot& slot = slot_of(chunk);
               const std::shared_lock lock(slot.lock, std::try_to_lock);
               if (!lock) return EAGAIN;
               if (!is_written(chunk)) {
                 std::memset(into.data() + at, 0, count);
                 have += count;
                 return 0;
               }
               if (slot.chunk != chunk) return EAGAIN;
               const iovec piece = {into.data() + at, count};
               const ssize_t cached =
                   ::preadv2(slot.fd.get(), &piece, 1, static_cast<off_t>(within), RWF_NOWAIT);
               if (cached > 0) have += static_cast<std::size_t>(cached);
               return cached == static_cast<ssize_t>(count) ? 0 : EAGAIN;
             });
  return have;
}

int DirStore::do_read(std::uint64_t offset, std::span<std::byte> into) {
  return for_chunks(
      offset, into.size(), chunk_,
      [&](std::uint64_t chunk, std::uint64_t within, std::uint64_t at, std::uint64_t count) {
        return read_chunk(chunk, within, into.subspan(at, count));
      });
}

int DirStore::do_write(std::uint64_t offset, std::span<const std::byte> from) {
  return for_chunks(
      offset, from.size(), chunk_,
      [&](std::uint64_t chunk, std::uint64_t within, std::uint64_t at, std::uint64_t count) {
        return write_chunk(chunk, within, from.subspan(at, count));
      });
}

int DirStore::do_zero(std::uint64_t offset, std::uint64_t length) {
  // A terabyte of nothing is zeroed at once.
  const std::uint64_t end = offset + length;
  for (std::uint64_t chunk = offset / chunk_;; ++chunk) {
    {
      const std::lock_guard lock(mutex_);
      chunk = written_.next(chunk);
    }
    if (chunk * chunk_ >= end) return 0;
    const std::uint64_t first = std::max(offset, chunk * chunk_);
    const std::uint64_t last = std::min(end, (chunk + 1) * chunk_);
    if (const int err = zero_chunk(chunk, first % chunk_, last - first); err != 0) return err;
  }
}

// --- flush -------------------------------------------------------------------

int DirStore::sync(int fd, bool directory) { return sync_by(sync_, fd, directory); }

// Chunks, then the names of new ones, then the manifest that lists them, then
// the end of those that it lists no more.
int DirStore::do_flush() {
  std::bitset<4096> grown;
  bool changed;
  {
    const std::lock_guard lock(mutex_);
    grown = std::exchange(grown_, {});
    changed = std::exchange(changed_, false);
    if (changed) {
      manifest_.written = written_;
      for (std::size_t i = 0; i < kept_.words().size(); ++i)
        kept_.words()[i] |= written_.words()[i];
    }
  }
  int err = sync_chunks();
  if (err == 0) err = sync_directories(grown);
  if (err == 0 && changed) {
    const auto by = [this](int fd, bool directory) { return sync(fd, directory); };
    const Status replaced = replace_manifest(dir_.get(), facts_.path, manifest_, by);
    if (!replaced.ok()) {
      kDirLog.error("{}", replaced.cause());
      err = replaced.err();
    }
  }
  {
    const std::lock_guard lock(mutex_);
    if (err != 0) {
      grown_ |= grown;
      changed_ |= changed;
      return err;
    }
    if (changed) kept_ = manifest_.written;
  }
  if (changed) remove_unlisted();
  return 0;
}

int DirStore::sync_chunks() {
  int err = 0;
  for (Slot& slot : slots_) {
    UniqueFd fd;
    {
      const std::shared_lock lock(slot.lock);
      if (!slot.dirty) continue;
      // The same open file, so that writers need not wait for the disk.
      fd.reset(::fcntl(slot.fd.get(), F_DUPFD_CLOEXEC, 0));
      if (!fd) return errno;
      slot.dirty = false;
    }
    if (sync(fd.get(), false) != 0) err = errno;
    struct stat info = {};
    if (::fstat(fd.get(), &info) != 0 || info.st_nlink == 0) err = EIO;  // somebody removed it
  }
  const std::lock_guard lock(mutex_);
  if (const int before = std::exchange(sync_error_, 0); before != 0) err = before;
  return err;
}

int DirStore::sync_directories(const std::bitset<4096>& groups) {
  if (groups.none()) return 0;
  for (std::size_t group = 0; group < groups.size(); ++group) {
    if (!groups.test(group)) continue;
    const ChunkName name(group << 12);
    const UniqueFd fd(::openat(dir_.get(), name.group, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd && errno == ENOENT) continue;  // no chunk of it could be created
    if (!fd || sync(fd.get(), true) != 0) return errno;
  }
  return sync(dir_.get(), true) == 0 ? 0 : errno;
}

void DirStore::remove_unlisted() {
  std::vector<std::uint64_t> chunks;
  {
    const std::lock_guard lock(mutex_);
    for (std::size_t i = 0; i < present_.words().size(); ++i)
      for (std::uint64_t word = present_.words()[i] & ~written_.words()[i] & ~kept_.words()[i];
           word != 0; word &= word - 1)
        chunks.push_back(i * 64 + static_cast<unsigned>(std::countr_zero(word)));
  }
  for (const std::uint64_t chunk : chunks) {
    Slot& slot = slot_of(chunk);
    const std::unique_lock lock(slot.lock);
    if (is_written(chunk)) continue;
    if (slot.chunk == chunk) {
      slot.dirty = false;  // nobody misses it
      empty(slot);
    }
    if (::unlinkat(dir_.get(), ChunkName(chunk).file, 0) != 0 && errno != ENOENT) continue;
    const std::lock_guard state(mutex_);
    present_.reset(chunk);
  }
}

// Removes what crashes have left, and tells about what is missing. Before the
// first operation.
void DirStore::sweep() {
  Bitmap found(manifest_.chunks());
  std::uint64_t removed = 0;
  std::vector<std::uint64_t> groups;
  (void)list(dir_.get(), ".", [&](std::string_view name) {
    if (const auto group = number_of(name, 3)) groups.push_back(*group);
  });
  for (const std::uint64_t group : groups)
    (void)list(dir_.get(), ChunkName(group << 12).group, [&](std::string_view name) {
      const auto chunk = number_of(name, 6);
      if (!chunk || group_of(*chunk) != group || *chunk >= manifest_.chunks()) return;
      if (written_.test(*chunk))
        found.set(*chunk);
      else if (::unlinkat(dir_.get(), ChunkName(*chunk).file, 0) == 0)
        ++removed;
    });
  if (removed > 0)
    kDirLog.info("{}: removed {} chunks that were not flushed", facts_.path, removed);
  if (const std::uint64_t lost = written_.count() - found.count(); lost > 0)
    kDirLog.error("{}: {} chunks are missing: reading them will fail", facts_.path, lost);
}

}  // namespace rmem::store
