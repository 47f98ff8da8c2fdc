// SPDX-License-Identifier: MIT
#include "store/file.hh"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "base/units.hh"
#include "store/range.hh"

namespace rmem::store {
namespace {

// Mixes `text` into `seed`: FNV-1a with a final avalanche. Not for secrets.
std::uint64_t hash(std::string_view text, std::uint64_t seed) {
  std::uint64_t h = 0xcbf29ce484222325 ^ seed;
  for (const char c : text) h = (h ^ static_cast<std::uint8_t>(c)) * 0x100000001b3;
  h = (h ^ (h >> 33)) * 0xff51afd7ed558ccd;
  h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53;
  return h ^ (h >> 33);
}

Uuid derive_identity(const FileFacts& facts) {
  const std::string text = facts.path + '\0' + std::to_string(facts.inode) + '\0' + facts.birth +
                           '\0' + std::to_string(facts.size);
  const std::uint64_t halves[2] = {hash(text, 1), hash(text, 2)};
  Uuid uuid;
  std::memcpy(uuid.data(), halves, sizeof halves);
  uuid[6] = (uuid[6] & 0x0f) | 0x80;  // version 8: of our own making
  uuid[8] = (uuid[8] & 0x3f) | 0x80;
  return uuid;
}

std::uint64_t boot_and_process() {
  static const std::uint64_t value = [] {
    std::string boot;
    std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
    return hash(boot, random_u64());
  }();
  return value;
}

// What a client can make something of.
int store_errno(int err) {
  switch (err) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return ENOSPC;
    case EROFS:
    case EINVAL:
      return err;
    default:
      return EIO;
  }
}

Result<FileFacts> facts_of(int fd, const std::string& path) {
  struct statx info = {};
  if (::statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &info) != 0)
    return Status::from_errno(errno, path);
  if (!S_ISREG(info.stx_mode)) return Status(Code::kFailed, path + ": not a regular file");
  FileFacts facts;
  char* real = ::realpath(path.c_str(), nullptr);
  if (real == nullptr) return Status::from_errno(errno, path);
  facts.path = real;
  std::free(real);
  facts.device = std::uint64_t{info.stx_dev_major} << 32 | info.stx_dev_minor;
  facts.inode = info.stx_ino;
  if (info.stx_mask & STATX_BTIME) {
    std::string nanoseconds = std::to_string(info.stx_btime.tv_nsec);
    nanoseconds.insert(0, 9 - nanoseconds.size(), '0');
    facts.birth = std::to_string(info.stx_btime.tv_sec) + "." + nanoseconds;
  }
  facts.size = info.stx_size;
  return facts;
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
  auto facts = facts_of(fd.get(), path);
  if (!facts) return facts.status();
  if (options.size && *options.size != facts->size)
    return Status(
        Code::kCorrupt,
        path + ": has " + format_size(facts->size) + ", not " + format_size(*options.size),
        "leave out ?size= to export it as it is, or use another path");
  if (facts->size == 0)
    return Status(Code::kFailed, path + ": is empty", "give ?size= and a path that does not exist");
  return std::unique_ptr<FileStore>(
      new FileStore(workers, std::move(fd), *std::move(facts), options));
}

FileStore::FileStore(Workers& workers, UniqueFd fd, FileFacts facts, const FileOptions& options)
    : workers_(workers),
      fd_(std::move(fd)),
      facts_(std::move(facts)),
      sync_(options.sync != nullptr ? options.sync : ::fdatasync) {
  geometry_.size = facts_.size;
  geometry_.read_only = options.read_only;
  geometry_.identity = derive_identity(facts_);
  new_epoch();
  batch_.store = flush_.store = this;
  batch_.run = [](Workers::Job& job) {
    for (Op* op : static_cast<Batch&>(job).ops)
      op->err = op->kind == Op::Kind::kWrite ? op->store->do_write(*op) : op->store->do_zero(*op);
  };
  batch_.done = [](Workers::Job& job) {
    FileStore& self = *static_cast<Batch&>(job).store;
    // By index, and the list kept until the end: completions may call write().
    for (std::size_t i = 0; i < self.batch_.ops.size(); ++i) self.finish(*self.batch_.ops[i]);
    self.batch_running_ = false;
    if (!self.waiting_.empty()) self.start_batch();
  };
  flush_.run = [](Workers::Job& job) {
    auto& self = static_cast<Flush&>(job);
    self.err = self.store->sync_(self.store->fd_.get()) == 0 ? 0 : errno;
  };
  flush_.done = [](Workers::Job& job) {
    FileStore& self = *static_cast<Flush&>(job).store;
    Outcome outcome{0, self.geometry_.epoch};
    if (self.flush_.err != 0) {
      outcome = {store_errno(self.flush_.err), 0};
      ++self.failed_flushes_;
      self.new_epoch();
    }
    for (std::size_t i = 0; i < self.flush_.callbacks.size(); ++i)
      self.flush_.callbacks[i](outcome);
    self.flush_running_ = false;
    if (!self.flushes_waiting_.empty()) self.start_flush();
  };
}

FileStore::~FileStore() = default;

void FileStore::new_epoch() {
  geometry_.epoch = hash(std::to_string(failed_flushes_), boot_and_process());
  if (geometry_.epoch == 0) geometry_.epoch = 1;
}

FileStore::Op& FileStore::take_op(Op::Kind kind, std::uint64_t offset, std::uint64_t length,
                                  std::byte* bytes, Done done) {
  if (free_.empty()) {
    ops_.push_back(std::make_unique<Op>());
    free_.reserve(ops_.size());
    free_.push_back(ops_.back().get());
  }
  Op& op = *free_.back();
  free_.pop_back();
  op.kind = kind;
  op.store = this;
  op.offset = offset;
  op.length = length;
  op.bytes = bytes;
  op.callback = done;
  op.epoch = geometry_.epoch;
  op.err = 0;
  return op;
}

void FileStore::finish(Op& op) {
  const Done done = op.callback;
  const Outcome outcome{op.err == 0 ? 0 : store_errno(op.err), op.err == 0 ? op.epoch : 0};
  free_.push_back(&op);
  done(outcome);
}

void FileStore::read(std::uint64_t offset, std::span<std::byte> into, Done done) {
  if (!inside(offset, into.size(), geometry_.size)) return done({EINVAL, 0});
  const iovec whole = {into.data(), into.size()};
  const ssize_t cached = ::preadv2(fd_.get(), &whole, 1, static_cast<off_t>(offset), RWF_NOWAIT);
  if (cached == static_cast<ssize_t>(into.size())) return done({0, geometry_.epoch});
  // The rest has to come from the disk (or the file system knows no NOWAIT).
  const std::size_t have = cached > 0 ? static_cast<std::size_t>(cached) : 0;
  Op& op = take_op(Op::Kind::kRead, offset + have, into.size() - have, into.data() + have, done);
  op.run = [](Workers::Job& job) {
    auto& self = static_cast<Op&>(job);
    self.err = self.store->do_read(self);
  };
  op.done = [](Workers::Job& job) {
    auto& self = static_cast<Op&>(job);
    self.store->finish(self);
  };
  workers_.submit(op);
}

void FileStore::write(std::uint64_t offset, std::span<const std::byte> from, Done done) {
  if (geometry_.read_only) return done({EROFS, 0});
  if (!inside(offset, from.size(), geometry_.size)) return done({EINVAL, 0});
  modify(take_op(Op::Kind::kWrite, offset, from.size(), const_cast<std::byte*>(from.data()), done));
}

void FileStore::zero(std::uint64_t offset, std::uint64_t length, Done done) {
  if (geometry_.read_only) return done({EROFS, 0});
  if (!inside(offset, length, geometry_.size)) return done({EINVAL, 0});
  modify(take_op(Op::Kind::kZero, offset, length, nullptr, done));
}

void FileStore::modify(Op& op) {
  waiting_.push_back(&op);
  if (!batch_running_) start_batch();
}

void FileStore::start_batch() {
  batch_running_ = true;
  batch_.ops.clear();
  batch_.ops.swap(waiting_);
  // The epoch of a write is the one before it began: if a flush fails
  // meanwhile, its pages may be among those that were dropped.
  for (Op* op : batch_.ops) op->epoch = geometry_.epoch;
  workers_.submit(batch_);
}

void FileStore::flush(Done done) {
  if (geometry_.read_only) return done({EROFS, 0});
  flushes_waiting_.push_back(done);
  if (!flush_running_) start_flush();
}

// One at a time: of two that run together, one may get the error of a
// write-back that concerns both.
void FileStore::start_flush() {
  flush_running_ = true;
  flush_.callbacks.clear();
  flush_.callbacks.swap(flushes_waiting_);
  workers_.submit(flush_);
}

int FileStore::do_read(const Op& op) const {
  std::uint64_t have = 0;
  while (have < op.length) {
    const ssize_t count =
        ::pread(fd_.get(), op.bytes + have, op.length - have, static_cast<off_t>(op.offset + have));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno;
    if (count == 0) return EIO;  // somebody has cut the file short
    have += static_cast<std::uint64_t>(count);
  }
  return 0;
}

int FileStore::do_write(const Op& op) const {
  std::uint64_t have = 0;
  while (have < op.length) {
    const ssize_t count = ::pwrite(fd_.get(), op.bytes + have, op.length - have,
                                   static_cast<off_t>(op.offset + have));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno;
    if (count == 0) return EIO;
    have += static_cast<std::uint64_t>(count);
  }
  return 0;
}

int FileStore::do_zero(const Op& op) const {
  if (::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  static_cast<off_t>(op.offset), static_cast<off_t>(op.length)) == 0)
    return 0;
  if (errno != EOPNOTSUPP && errno != ENOSYS) return errno;
  static constexpr std::array<std::byte, 256 << 10> kZeros{};
  Op piece = op;
  piece.bytes = const_cast<std::byte*>(kZeros.data());
  for (const std::uint64_t end = op.offset + op.length; piece.offset < end;
       piece.offset += piece.length) {
    piece.length = std::min<std::uint64_t>(kZeros.size(), end - piece.offset);
    if (const int err = do_write(piece); err != 0) return err;
  }
  return 0;
}

}  // namespace rmem::store
