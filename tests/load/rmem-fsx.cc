// SPDX-License-Identifier: MIT
//
// A model checker for a region's data: processes do what chance tells them, by mappings and by
// system calls, and know at any moment what every word may be.
//
//   rmem-fsx make FILE SIZE            what a store holds before anything was written to it
//   rmem-fsx run PATH... --oracle FILE random operations, each verified, until SIGTERM or
//            [--seconds N | --ops N]   for so long (a process); process i uses the i-th PATH, in
//            turn.
//            [--processes N]           Else 4 of them
//            [--errors]                the store may fail: EIO, ENOSPC and SIGBUS are no finding,
//            wrong
//                                      bytes are
//            [--plant N]               each N-th write of process 1 is lost: to see that it is
//                                      found
//            [--no-punch]              what some stores cannot do under all circumstances
//   rmem-fsx run PATH --oracle FILE --replay TRACE
//                                      what a trace says, in one process
//   rmem-fsx check STORE ORACLE [exact]
//                                      what the server has, against what the processes know:
//                                      nothing promised is missing; or, after a sync at the end,
//                                      nothing at all
//   rmem-fsx progress ORACLE           prints how many operations there were
//
// PATH may be NAME@/dev/rmem. Chance begins with --seed N, else RMEM_SEED; it also makes the bytes,
// so make, run and check of one region take the same.
//
// The model. Every word of eight bytes says who wrote it, as which of its block's writes, and has a
// checksum of that, the seed and its own place: so a word that is from the past, from elsewhere or
// from nowhere is known as such. For each word the oracle, in memory shared by all, has the version
// that was written last and the one that a sync has promised. Blocks of 512 bytes have locks, so
// processes write to one page at a time, but never to one word:
//
//   - who has the block's lock sees exactly what was written last, whatever was killed meanwhile;
//   - who has not sees that or, of words being written, something newer. Nothing else, no zeros;
//   - the store has for each word what was promised or something newer, never something else. (A
//   page
//     of it may be a mixture: what was not promised may be torn, word by word.)
//
// Operations that fail half way (--errors) leave words in doubt between old and new; who reads them
// next decides, and from then on it stays so.
//
// A finding is told with the seed and the operations that touched the place. With one process the
// run can be repeated: its trace is made as short as it still fails, and stands in ORACLE.trace.
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <new>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include <linux/rmem.h>

namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kPageWords = kPage / 8;
constexpr std::uint64_t kBlockWords = 64;
constexpr std::uint64_t kMostWords = 32 * kPageWords;  // of one operation

[[noreturn]] [[gnu::format(printf, 1, 2)]] void die(const char* format, ...) {
  va_list list;
  va_start(list, format);
  std::fputs("rmem-fsx: ", stderr);
  std::vfprintf(stderr, format, list);
  std::fputc('\n', stderr);
  va_end(list);
  std::exit(1);
}

[[gnu::format(printf, 1, 2)]] std::string text(const char* format, ...) {
  char buffer[512];
  va_list list;
  va_start(list, format);
  std::vsnprintf(buffer, sizeof(buffer), format, list);
  va_end(list);
  return buffer;
}

std::uint64_t number(const char* from) {
  char* end = nullptr;
  const std::uint64_t n = std::strtoull(from, &end, 0);
  if (*from == '\0' || *end != '\0') die("`%s' is not a number", from);
  return n;
}

std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

class Chance {
 public:
  explicit Chance(std::uint64_t seed) : state_(mix(seed)) {}
  std::uint64_t below(std::uint64_t most) {
    state_ += 0x9e3779b97f4a7c15u;
    return mix(state_) % most;
  }

 private:
  std::uint64_t state_;
};

// --- words -------------------------------------------------------------------

// Of a word: which of its block's writes made it, by whom, and whether that was a hole. Later is
// more.
using Version = std::uint32_t;
constexpr Version kHole = 1;
constexpr std::uint32_t kMostWrites = (1u << 24) - 1;

Version version_of(std::uint32_t seq, unsigned writer, bool hole) {
  return seq << 8 | (writer & 0x7f) << 1 | (hole ? kHole : 0);
}
std::uint32_t seq_of(Version v) { return v >> 8; }

std::uint64_t value_of(std::uint64_t seed, std::uint64_t word, Version v) {
  if ((v & kHole) != 0) return 0;
  const std::uint64_t sum = mix(mix(seed) + word * 0x9e3779b97f4a7c15u + v);
  return std::uint64_t{v} << 32 | (sum & 0xffffffffu) | 1;
}

// --- what is done --------------------------------------------------------------

enum class Kind : std::uint8_t {
  kLoad,  // mapped, with the lock
  kRace,  // mapped, without
  kPread,
  kStore,  // mapped
  kPwrite,
  kDwrite,  // pwrite that syncs
  kMsync,
  kFsync,
  kPunch,
  kDrop,
  kPull,
  kDontneed,
  kPageout,
  kWillneed,
  kRemap,  // a new descriptor and mapping
  kCount,
};
constexpr std::size_t kKinds = static_cast<std::size_t>(Kind::kCount);
constexpr std::array<const char*, kKinds> kNames = {
    "load",  "race", "pread", "store",    "pwrite",  "dwrite",   "msync", "fsync",
    "punch", "drop", "pull",  "dontneed", "pageout", "willneed", "remap"};
// Of a thousand.
constexpr std::array<unsigned, kKinds> kWeights = {200, 180, 110, 200, 110, 15, 50, 5,
                                                   15,  40,  10,  20,  20,  10, 15};

struct Op {
  Kind kind;
  bool lost;                   // planted
  std::uint64_t first, count;  // words
};

bool writes(Kind kind) {
  return kind == Kind::kStore || kind == Kind::kPwrite || kind == Kind::kDwrite;
}

// Most are small, some are larger than a chunk, and few begin or end with a page. Half of them are
// about one of sixteen pages, for much to befall the same one.
Op draw(Chance& chance, std::uint64_t words, bool punch) {
  Op op{};
  do {
    std::uint64_t dice = chance.below(1000);
    std::size_t kind = 0;
    while (dice >= kWeights[kind]) dice -= kWeights[kind++];
    op.kind = static_cast<Kind>(kind);
  } while (op.kind == Kind::kPunch && !punch);
  const std::uint64_t size = chance.below(20);
  const std::uint64_t most = size < 6    ? 16
                             : size < 13 ? kPageWords
                             : size < 19 ? 4 * kPageWords
                                         : kMostWords;
  op.first = chance.below(words);
  if (chance.below(2) == 0)
    op.first = std::min(
        mix(chance.below(16) + 1) % words / kPageWords * kPageWords + op.first % kPageWords,
        words - 1);
  if (chance.below(4) == 0) op.first -= op.first % kPageWords;
  op.count = std::min(1 + chance.below(most), words - op.first);
  return op;
}

// --- what is known ---------------------------------------------------------------

struct Block {
  pthread_mutex_t lock;
  std::atomic<std::uint32_t> begun;  // writes of it, this one included
  std::atomic<std::uint32_t> punch;  // which of them was the last hole
  std::atomic<std::uint32_t> doubt;  // one that failed half way and nobody has looked since
};

// An operation in the log: until `end` it is under way.
struct Record {
  std::uint64_t begin, end, first, count;  // microseconds; words
  std::int32_t error;
  std::uint16_t process;
  Kind kind;
  bool lost;
};
constexpr std::uint64_t kLog = 1 << 15;

struct Shared {
  std::uint64_t seed, size, words, blocks;
  std::atomic<std::uint64_t> operations, planned, logged, errors, promises;
  std::array<std::atomic<std::uint64_t>, kKinds> done;
  std::atomic<int> stop, failed;
  std::uint64_t bad_word;
  char failure[600];
  std::array<Record, kLog> log;
};

// In a file that all processes map, or in private memory for a replay.
class Model {
 public:
  Model(const char* path, std::uint64_t seed, std::uint64_t size) {
    const std::uint64_t words = size / 8, blocks = (words + kBlockWords - 1) / kBlockWords;
    bytes_ = sizeof(Shared) + blocks * sizeof(Block) + 2 * words * sizeof(Version);
    int fd = -1;
    if (path != nullptr) {
      fd = ::open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
      if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(bytes_)) != 0)
        die("%s: %s", path, std::strerror(errno));
    }
    attach(fd);
    shared_->seed = seed;
    shared_->size = size;
    shared_->words = words;
    shared_->blocks = blocks;
    set_arrays();
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    for (std::uint64_t i = 0; i < blocks; i++) pthread_mutex_init(&block_[i].lock, &attributes);
  }
  explicit Model(const char* path) {
    const int fd = ::open(path, O_RDWR | O_CLOEXEC);
    struct stat st {};
    if (fd < 0 || ::fstat(fd, &st) != 0) die("%s: %s", path, std::strerror(errno));
    bytes_ = static_cast<std::uint64_t>(st.st_size);
    attach(fd);
    set_arrays();
  }
  ~Model() { ::munmap(shared_, bytes_); }
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  Shared& shared() { return *shared_; }
  Block& block(std::uint64_t word) { return block_[word / kBlockWords]; }
  std::atomic<Version>& now(std::uint64_t word) { return now_[word]; }
  std::atomic<Version>& promised(std::uint64_t word) { return promised_[word]; }

  void promise(std::uint64_t word, Version v) {
    Version old = promised_[word].load();
    while (old < v && !promised_[word].compare_exchange_weak(old, v)) {
    }
  }
  std::uint64_t value(std::uint64_t word, Version v) const {
    return value_of(shared_->seed, word, v);
  }

  // What a word that is `low` or newer may be. Call it after the word was read.
  bool may_be(std::uint64_t word, std::uint64_t seen, Version low) {
    if (seen == value(word, low)) return true;
    if (seen == 0) return block(word).punch.load() > seq_of(low);
    const auto v = static_cast<Version>(seen >> 32);
    return (v & kHole) == 0 && seen == value(word, v) && seq_of(v) > seq_of(low) &&
           seq_of(v) <= block(word).begun.load();
  }

  std::string what(std::uint64_t word, std::uint64_t seen, Version low) {
    const auto v = static_cast<Version>(seen >> 32);
    std::string is = "from nowhere";
    if (seen == 0) {
      is = "zero";
    } else if ((v & kHole) == 0 && seen == value(word, v)) {
      is = text("%s: write %u by process %u", seq_of(v) < seq_of(low) ? "old" : "of another time",
                seq_of(v), v >> 1 & 0x7f);
    } else {
      for (std::uint64_t w = 0; w < shared_->words; w++)
        if (seen == value(w, v)) is = text("that of offset %#lx", w * 8);
    }
    return text(
        "word at %#lx (page %lu, block %lu) is %#018lx, %s; want write %u by process %u%s or, "
        "at most, %u",
        word * 8, word / kPageWords, word / kBlockWords, seen, is.c_str(), seq_of(low),
        low >> 1 & 0x7f, (low & kHole) != 0 ? " (a hole)" : "", block(word).begun.load());
  }

 private:
  void attach(int fd) {
    void* at = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                      MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
    if (at == MAP_FAILED) die("mmap of the oracle: %s", std::strerror(errno));
    if (fd >= 0) ::close(fd);
    shared_ = static_cast<Shared*>(at);
  }
  void set_arrays() {
    block_ = reinterpret_cast<Block*>(shared_ + 1);
    now_ = reinterpret_cast<std::atomic<Version>*>(block_ + shared_->blocks);
    promised_ = now_ + shared_->words;
  }

  std::uint64_t bytes_ = 0;
  Shared* shared_ = nullptr;
  Block* block_ = nullptr;
  std::atomic<Version>* now_ = nullptr;
  std::atomic<Version>* promised_ = nullptr;
};

// The blocks of a range, locked in rising order.
class Locked {
 public:
  Locked(Model& model, const Op& op) : model_(model), op_(op) {
    for (std::uint64_t w = op.first; w < op.first + op.count; w = next(w))
      pthread_mutex_lock(&model.block(w).lock);
  }
  ~Locked() {
    for (std::uint64_t w = op_.first; w < op_.first + op_.count; w = next(w))
      pthread_mutex_unlock(&model_.block(w).lock);
  }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;
  static std::uint64_t next(std::uint64_t word) { return (word / kBlockWords + 1) * kBlockWords; }

 private:
  Model& model_;
  const Op op_;
};

// --- access that may end in a signal ----------------------------------------------

sigjmp_buf sigbus_return;
volatile sig_atomic_t sigbus_expected = 0;

void on_sigbus(int signal) {
  if (sigbus_expected != 0) siglongjmp(sigbus_return, 1);
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

// How many words were copied before a SIGBUS. A word is loaded and stored whole.
std::uint64_t copy_words(volatile std::uint64_t* to, const volatile std::uint64_t* from,
                         std::uint64_t count) {
  static volatile std::uint64_t at;
  at = 0;
  if (sigsetjmp(sigbus_return, 1) == 0) {
    sigbus_expected = 1;
    while (at < count) {
      const std::uint64_t i = at;
      to[i] = from[i];
      at = i + 1;
    }
  }
  sigbus_expected = 0;
  return at;
}

// --- a process's region --------------------------------------------------------------

struct Failure {
  std::string what;
  std::uint64_t word;
};

int open_region(const std::string& path, int flags) {
  const std::size_t at = path.find('@');
  const std::string file = at == std::string::npos ? path : path.substr(at + 1);
  const int fd = ::open(file.c_str(), flags | O_CLOEXEC);
  if (fd < 0) die("open %s: %s", file.c_str(), std::strerror(errno));
  if (at != std::string::npos) {
    rmem_ioc_attach attach{};
    attach.size = sizeof(attach);
    std::snprintf(attach.name, sizeof(attach.name), "%s", path.substr(0, at).c_str());
    if (::ioctl(fd, RMEM_IOC_ATTACH, &attach) != 0)
      die("attach %s: %s", path.c_str(), std::strerror(errno));
  }
  return fd;
}

std::uint64_t file_size(int fd) {
  const off_t size = ::lseek(fd, 0, SEEK_END);
  if (size < 0) die("lseek: %s", std::strerror(errno));
  return static_cast<std::uint64_t>(size);
}

class Process {
 public:
  Process(Model& model, std::string path, unsigned id, bool errors)
      : model_(model), shared_(model.shared()), path_(std::move(path)), id_(id), errors_(errors) {
    open();
  }
  ~Process() { close(); }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void run(const Op& op) {
    Record& record = shared_.log[shared_.logged.fetch_add(1) % kLog];
    record = Record{now_us(), 0,      op.first, op.count, 0, static_cast<std::uint16_t>(id_),
                    op.kind,  op.lost};
    error_ = 0;
    switch (op.kind) {
      case Kind::kLoad:
      case Kind::kPread:
        read(op);
        break;
      case Kind::kRace:
        race(op);
        break;
      case Kind::kStore:
      case Kind::kPwrite:
      case Kind::kDwrite:
        write(op);
        break;
      case Kind::kMsync:
      case Kind::kFsync:
        sync(op);
        break;
      case Kind::kPunch:
        punch(op);
        break;
      case Kind::kDrop:
        drop(op);
        break;
      case Kind::kPull:
        pull(op);
        break;
      case Kind::kDontneed:
        advise(op, MADV_DONTNEED);
        break;
      case Kind::kPageout:
        advise(op, MADV_PAGEOUT);
        break;
      case Kind::kWillneed:
        advise(op, MADV_WILLNEED);
        break;
      case Kind::kRemap:
        close();
        open();
        break;
      case Kind::kCount:
        break;
    }
    record.error = error_;
    record.end = now_us();
    shared_.done[static_cast<std::size_t>(op.kind)]++;
    shared_.operations++;
  }

  // As a store is that `make` has made: before a replay.
  void reset() {
    std::vector<std::uint64_t> base(shared_.words);
    for (std::uint64_t w = 0; w < shared_.words; w++) base[w] = model_.value(w, 0);
    const std::size_t bytes = shared_.words * 8;
    if (::pwrite(fd_, base.data(), bytes, 0) != static_cast<ssize_t>(bytes) || ::fsync(fd_) != 0)
      die("cannot write what the region had at first: %s", std::strerror(errno));
    drop(Op{Kind::kDrop, false, 0, shared_.words});
  }

 private:
  static std::uint64_t now_us() {
    using namespace std::chrono;
    return static_cast<std::uint64_t>(
        duration_cast<microseconds>(steady_clock::now().time_since_epoch()).count());
  }

  void open() {
    fd_ = open_region(path_, O_RDWR);
    void* at = ::mmap(nullptr, shared_.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
    if (at == MAP_FAILED) die("mmap: %s", std::strerror(errno));
    map_ = static_cast<std::uint64_t*>(at);
  }
  void close() {
    ::munmap(map_, shared_.size);
    ::close(fd_);
  }

  // A system call has failed, or there was a SIGBUS (EFAULT): may that be?
  void failed(const Op& op, int err) {
    error_ = err;
    if (!errors_ || (err != EIO && err != ENOSPC && err != EFAULT))
      throw Failure{text("%s: %s", kNames[static_cast<std::size_t>(op.kind)],
                         err == EFAULT ? "SIGBUS" : std::strerror(err)),
                    op.first};
    shared_.errors++;
  }

  void read(const Op& op) {
    const Locked locked(model_, op);
    std::uint64_t got = 0;
    if (op.kind == Kind::kLoad) {
      got = copy_words(buffer_.data(), map_ + op.first, op.count);
      if (got < op.count) failed(op, EFAULT);
    } else {
      const ssize_t n =
          ::pread(fd_, buffer_.data(), op.count * 8, static_cast<off_t>(op.first * 8));
      if (n < 0) failed(op, errno);
      got = n < 0 ? 0 : static_cast<std::uint64_t>(n) / 8;
      if (n >= 0 && got < op.count && !errors_)
        throw Failure{text("pread: %zd of %lu bytes", n, op.count * 8), op.first};
    }
    for (std::uint64_t i = 0; i < got; i++) {
      const std::uint64_t w = op.first + i, seen = buffer_[i];
      const Version now = model_.now(w).load();
      if (seen == model_.value(w, now)) continue;
      if (model_.block(w).doubt.load() == 0 || !model_.may_be(w, seen, now))
        throw Failure{
            text("%s: ", kNames[static_cast<std::size_t>(op.kind)]) + model_.what(w, seen, now), w};
      // This is what it is from now on.
      model_.now(w).store(seen != 0 ? static_cast<Version>(seen >> 32)
                                    : version_of(model_.block(w).punch.load(), 0, true));
    }
    no_doubt(op.first, got);
  }

  // Blocks that were read or written from their first word to their last.
  void no_doubt(std::uint64_t first, std::uint64_t count) {
    std::uint64_t w = (first + kBlockWords - 1) / kBlockWords * kBlockWords;
    for (; std::min(w + kBlockWords, shared_.words) <= first + count && w < first + count;
         w += kBlockWords)
      model_.block(w).doubt.store(0);
  }

  void race(const Op& op) {
    for (std::uint64_t i = 0; i < op.count; i++) versions_[i] = model_.now(op.first + i).load();
    const std::uint64_t got = copy_words(buffer_.data(), map_ + op.first, op.count);
    for (std::uint64_t i = 0; i < got; i++)
      if (!model_.may_be(op.first + i, buffer_[i], versions_[i]))
        throw Failure{"race: " + model_.what(op.first + i, buffer_[i], versions_[i]), op.first + i};
    if (got < op.count) failed(op, EFAULT);
  }

  // Begins a write of the range, whose blocks are locked.
  void begin(const Op& op, bool hole) {
    for (std::uint64_t w = op.first; w < op.first + op.count; w = Locked::next(w)) {
      Block& block = model_.block(w);
      const std::uint32_t seq = block.begun.load() + 1;
      if (seq > kMostWrites) die("too many writes of one block for its counter");
      block.begun.store(seq);
      if (hole) block.punch.store(seq);
      const std::uint64_t end = std::min(Locked::next(w), op.first + op.count);
      for (std::uint64_t i = w; i < end; i++) versions_[i - op.first] = version_of(seq, id_, hole);
    }
  }

  void doubt(const Op& op) {
    for (std::uint64_t w = op.first; w < op.first + op.count; w = Locked::next(w))
      model_.block(w).doubt.store(model_.block(w).begun.load());
  }

  void write(const Op& op) {
    const Locked locked(model_, op);
    begin(op, false);
    for (std::uint64_t i = 0; i < op.count; i++)
      buffer_[i] = model_.value(op.first + i, versions_[i]);
    std::uint64_t put = op.count;
    bool durable = false;
    if (op.lost) {
      // the region does not hear of it
    } else if (op.kind == Kind::kStore) {
      put = copy_words(map_ + op.first, buffer_.data(), op.count);
      if (put < op.count) failed(op, EFAULT);
    } else {
      const iovec vector{buffer_.data(), op.count * 8};
      const ssize_t n = ::pwritev2(fd_, &vector, 1, static_cast<off_t>(op.first * 8),
                                   op.kind == Kind::kDwrite ? RWF_DSYNC : 0);
      put = n < 0 ? 0 : static_cast<std::uint64_t>(n) / 8;
      durable = op.kind == Kind::kDwrite && n > 0;
      if (n < 0) {
        failed(op, errno);
        // It may have failed in its sync.
        if (op.kind == Kind::kDwrite) doubt(op);
      } else if (put < op.count && !errors_) {
        throw Failure{text("pwrite: %zd of %lu bytes", n, op.count * 8), op.first};
      }
    }
    for (std::uint64_t i = 0; i < put; i++) {
      model_.now(op.first + i).store(versions_[i]);
      if (durable) model_.promise(op.first + i, versions_[i]);
    }
    no_doubt(op.first, put);
    if (durable) shared_.promises++;
  }

  void sync(const Op& op) {
    std::uint64_t first = op.first / kPageWords * kPageWords;
    std::uint64_t count = std::min(op.count + op.first - first, shared_.words - first);
    if (op.kind == Kind::kFsync) {
      first = 0;
      count = shared_.words;
    }
    for (std::uint64_t i = 0; i < count; i++) versions_[i] = model_.now(first + i).load();
    const int err =
        op.kind == Kind::kFsync ? ::fsync(fd_) : ::msync(map_ + first, count * 8, MS_SYNC);
    if (err != 0) return failed(op, errno);
    for (std::uint64_t i = 0; i < count; i++) model_.promise(first + i, versions_[i]);
    shared_.promises++;
  }

  void punch(const Op& op) {
    const Locked locked(model_, op);
    begin(op, true);
    if (ioctl_range(RMEM_IOC_PUNCH, op) != 0) {
      failed(op, errno);
      return doubt(op);
    }
    for (std::uint64_t i = 0; i < op.count; i++) {
      model_.now(op.first + i).store(versions_[i]);
      model_.promise(op.first + i, versions_[i]);
    }
    no_doubt(op.first, op.count);
    shared_.promises++;
  }

  int ioctl_range(unsigned long request, const Op& op) {
    rmem_ioc_range range{};
    range.size = sizeof(range);
    range.offset = op.first * 8;
    range.length = op.count * 8;
    return ::ioctl(fd_, request, &range);
  }

  void drop(const Op& op) {
    if (ioctl_range(RMEM_IOC_DROP, op) != 0) failed(op, errno);
  }

  // rmemd may be dead or deaf: then there is no pull.
  void pull(const Op& op) {
    rmem_ioc_info info{};
    info.size = sizeof(info);
    if (::ioctl(fd_, RMEM_IOC_INFO, &info) != 0) return failed(op, errno);
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const char* path = std::getenv("RMEM_SOCKET");
    std::snprintf(address.sun_path, sizeof(address.sun_path), "%s",
                  path != nullptr ? path : "/run/rmem/rmemd.sock");
    if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) {
      const std::string line = text(R"({"verb":"pull","name":"%s","offset":%lu,"length":%lu})"
                                    "\n",
                                    info.name, op.first * 8, op.count * 8);
      (void)::send(fd, line.data(), line.size(), MSG_NOSIGNAL);
    }
    ::close(fd);
  }

  void advise(const Op& op, int advice) {
    const std::uint64_t first = op.first / kPageWords * kPageWords;
    if (::madvise(map_ + first, (op.count + op.first - first) * 8, advice) != 0) failed(op, errno);
  }

  Model& model_;
  Shared& shared_;
  const std::string path_;
  const unsigned id_;
  const bool errors_;
  int fd_ = -1, error_ = 0;
  std::uint64_t* map_ = nullptr;
  std::vector<std::uint64_t> buffer_ = std::vector<std::uint64_t>(kMostWords);
  std::vector<Version> versions_ = std::vector<Version>(std::max(shared_.words, kMostWords));
};

// --- traces ------------------------------------------------------------------------

std::string line_of(const Op& op) {
  return text("%-8s %#9lx %#7lx%s", kNames[static_cast<std::size_t>(op.kind)], op.first * 8,
              op.count * 8, op.lost ? " lost" : "");
}

std::vector<Op> read_trace(const std::string& path, std::uint64_t words) {
  std::ifstream file(path);
  if (!file) die("%s: %s", path.c_str(), std::strerror(errno));
  std::vector<Op> ops;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream fields(line);
    std::string kind, first, count, lost;
    fields >> kind >> first >> count >> lost;
    const auto* const name = std::find(kNames.begin(), kNames.end(), kind);
    if (name == kNames.end()) die("%s: no operation `%s'", path.c_str(), kind.c_str());
    const Op op{static_cast<Kind>(name - kNames.begin()), lost == "lost", number(first.c_str()) / 8,
                number(count.c_str()) / 8};
    if (op.count == 0 || op.first + op.count > words || op.count > kMostWords)
      die("%s: outside of the region: %s", path.c_str(), line.c_str());
    ops.push_back(op);
  }
  return ops;
}

struct Options {
  std::vector<std::string> paths, rest;
  std::string oracle, replay;
  std::uint64_t seed = 1, ops = ~0ull, seconds = 0, plant = 0;
  unsigned processes = 4;
  bool errors = false, punch = true;
};

// The operations on a region as it is at first. Empty: all is well.
std::string replay(const Options& options, std::uint64_t size, const std::vector<Op>& ops) {
  Model model(nullptr, options.seed, size);
  Process process(model, options.paths[0], 1, options.errors);
  process.reset();
  try {
    for (const Op& op : ops) process.run(op);
  } catch (const Failure& failure) {
    return failure.what;
  }
  return {};
}

// Delta debugging: of ever smaller parts those that it fails without are left out.
std::vector<Op> shortest(const Options& options, std::uint64_t size, std::vector<Op> ops,
                         std::uint64_t bad_word) {
  unsigned tries = 300;
  const auto fails = [&](const std::vector<Op>& some) {
    return tries > 0 && tries-- > 0 && !replay(options, size, some).empty();
  };
  if (!fails(ops)) return {};
  // Nearly always it is about one page.
  std::vector<Op> near;
  const std::uint64_t page = bad_word / kPageWords;
  std::copy_if(ops.begin(), ops.end(), std::back_inserter(near), [&](const Op& op) {
    return op.first / kPageWords <= page && page <= (op.first + op.count - 1) / kPageWords;
  });
  if (near.size() < ops.size() && fails(near)) ops = near;
  for (std::size_t parts = 2; ops.size() > 1 && tries > 0;) {
    const std::size_t length = (ops.size() + parts - 1) / parts;
    bool shorter = false;
    for (std::size_t at = 0; at < ops.size(); at += length) {
      std::vector<Op> some(ops.begin(), ops.begin() + static_cast<std::ptrdiff_t>(at));
      some.insert(some.end(),
                  ops.begin() + static_cast<std::ptrdiff_t>(std::min(at + length, ops.size())),
                  ops.end());
      if (!fails(some)) continue;
      ops = some;
      parts = std::max<std::size_t>(2, parts - 1);
      shorter = true;
      break;
    }
    if (shorter) continue;
    if (length == 1) break;
    parts = std::min(ops.size(), parts * 2);
  }
  return ops;
}

// --- the run --------------------------------------------------------------------------

Shared* stopped_by_signal = nullptr;

void on_term(int) { stopped_by_signal->stop = 1; }

// The same operations for the same seed, whatever becomes of them.
class Plan {
 public:
  Plan(const Options& options, std::uint64_t words, unsigned process)
      : chance_(options.seed * 1000 + process),
        words_(words),
        options_(options),
        first_(process == 1) {}
  Op next() {
    Op op = draw(chance_, words_, options_.punch);
    op.lost = first_ && options_.plant != 0 && writes(op.kind) && ++writes_ % options_.plant == 0;
    return op;
  }

 private:
  Chance chance_;
  const std::uint64_t words_;
  const Options& options_;
  const bool first_;
  std::uint64_t writes_ = 0;
};

// At the end all of it is looked at.
std::vector<Op> last_look(std::uint64_t words) {
  std::vector<Op> ops;
  for (std::uint64_t w = 0; w < words; w += kMostWords)
    ops.push_back(Op{Kind::kLoad, false, w, std::min(kMostWords, words - w)});
  return ops;
}

void record_failure(Shared& shared, const std::string& what, std::uint64_t word) {
  if (shared.failed.exchange(1) != 0) return;
  std::snprintf(shared.failure, sizeof(shared.failure), "%s", what.c_str());
  shared.bad_word = word;
  shared.failed = 2;
}

[[noreturn]] void child(Model& model, const Options& options, unsigned id) {
  Shared& shared = model.shared();
  Process process(model, options.paths[(id - 1) % options.paths.size()], id, options.errors);
  Plan plan(options, shared.words, id);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(options.seconds);
  try {
    for (std::uint64_t n = 0; n < options.ops && shared.stop == 0 && shared.failed == 0; n++) {
      if (options.seconds != 0 && std::chrono::steady_clock::now() >= end) break;
      if (id == 1) shared.planned++;
      process.run(plan.next());
    }
    if (id == 1 && shared.failed == 0)
      for (const Op& op : last_look(shared.words)) process.run(op);
  } catch (const Failure& failure) {
    record_failure(shared, text("process %u: ", id) + failure.what, failure.word);
    std::_Exit(1);
  }
  std::_Exit(0);
}

void print_log(Shared& shared) {
  const std::uint64_t end = shared.logged, page = shared.bad_word / kPageWords;
  std::vector<const Record*> near;
  for (std::uint64_t i = end > kLog ? end - kLog : 0; i < end; i++) {
    const Record& r = shared.log[i % kLog];
    if (r.count > 0 && (r.kind == Kind::kFsync || (r.first / kPageWords <= page &&
                                                   page <= (r.first + r.count - 1) / kPageWords)))
      near.push_back(&r);
  }
  std::printf("what touched page %lu last (microseconds, process, operation, errno):\n", page);
  const std::size_t from = near.size() > 60 ? near.size() - 60 : 0;
  for (std::size_t i = from; i < near.size(); i++) {
    const Record& r = *near[i];
    std::printf("  %lu +%-8s %u %s%s\n", r.begin,
                r.end == 0 ? "..." : std::to_string(r.end - r.begin).c_str(), r.process,
                line_of(Op{r.kind, r.lost, r.first, r.count}).c_str(),
                r.error != 0 ? text(" %d", r.error).c_str() : "");
  }
}

void report(Model& model, const Options& options) {
  Shared& shared = model.shared();
  std::printf("FAILURE: seed %lu: %s\n", options.seed, shared.failure);
  print_log(shared);
  std::fflush(stdout);
  if (options.processes != 1 || !options.replay.empty()) return;
  Plan plan(options, shared.words, 1);
  std::vector<Op> ops;
  while (ops.size() < shared.planned) ops.push_back(plan.next());
  for (const Op& op : last_look(shared.words))
    if (ops.size() < shared.logged) ops.push_back(op);
  const std::vector<Op> least = shortest(options, shared.size, ops, shared.bad_word);
  if (least.empty()) {
    std::printf("a replay of its %zu operations does not fail\n", ops.size());
    return;
  }
  const std::string path = options.oracle + ".trace";
  std::ofstream file(path);
  file << "# rmem-fsx run PATH --oracle FILE --seed " << options.seed << " --replay THIS\n";
  std::printf("%zu of %zu operations are enough (%s):\n", least.size(), ops.size(), path.c_str());
  for (const Op& op : least) {
    file << line_of(op) << '\n';
    std::printf("  %s\n", line_of(op).c_str());
  }
}

int run(const Options& options) {
  if (options.paths.empty() || options.oracle.empty()) die("run: PATH and --oracle are needed");
  const int fd = open_region(options.paths[0], O_RDWR);
  const std::uint64_t size = file_size(fd) / 8 * 8;
  ::close(fd);
  std::signal(SIGBUS, on_sigbus);
  Model model(options.oracle.c_str(), options.seed, size);
  Shared& shared = model.shared();

  if (!options.replay.empty()) {
    const std::string failure = replay(options, size, read_trace(options.replay, shared.words));
    std::printf("%s\n", failure.empty() ? "the trace does not fail" : failure.c_str());
    return failure.empty() ? 0 : 1;
  }
  stopped_by_signal = &shared;
  std::signal(SIGTERM, on_term);
  std::vector<pid_t> children;
  for (unsigned id = 1; id <= options.processes; id++) {
    const pid_t pid = ::fork();
    if (pid < 0) die("fork: %s", std::strerror(errno));
    if (pid == 0) child(model, options, id);
    children.push_back(pid);
  }
  std::printf("ready\n");
  std::fflush(stdout);
  int status = 0, bad = 0;
  for (std::size_t left = children.size(); left > 0;) {
    const pid_t pid = ::wait(&status);
    if (pid < 0) continue;
    left--;
    if (status == 0) continue;
    // Of a process that was killed nobody says so.
    record_failure(shared, text("a process ended with wait status %#x", status), 0);
    // Who waits for a lock, or for a server that is not there, need not.
    for (const pid_t other : children)
      if (bad == 0 && other != pid) ::kill(other, SIGKILL);
    bad = 1;
  }
  std::printf("seed %lu: %lu operations:", options.seed, shared.operations.load());
  for (std::size_t i = 0; i < kKinds; i++) std::printf(" %s %lu", kNames[i], shared.done[i].load());
  std::printf("; %lu promises, %lu errors\n", shared.promises.load(), shared.errors.load());
  if (bad != 0) report(model, options);
  return bad;
}

// --- the store ---------------------------------------------------------------------------

int make(const Options& options) {
  if (options.rest.size() != 2) die("make: FILE and SIZE are needed");
  const std::uint64_t words = number(options.rest[1].c_str()) / 8;
  std::vector<std::uint64_t> value(words);
  for (std::uint64_t w = 0; w < words; w++) value[w] = value_of(options.seed, w, 0);
  std::ofstream file(options.rest[0], std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(value.data()), static_cast<std::streamsize>(words * 8));
  file.flush();
  if (!file) die("%s: %s", options.rest[0].c_str(), std::strerror(errno));
  return 0;
}

int check(const Options& options) {
  if (options.rest.size() < 2) die("check: STORE and ORACLE are needed");
  const bool exact = options.rest.size() > 2;
  Model model(options.rest[1].c_str());
  Shared& shared = model.shared();
  const std::string& path = options.rest[0];
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) die("%s: %s", path.c_str(), std::strerror(errno));
  std::vector<std::uint64_t> seen(kPageWords);
  std::vector<Version> low(kPageWords);
  std::uint64_t changed = 0, newer = 0;
  for (std::uint64_t first = 0; first < shared.words; first += kPageWords) {
    const std::uint64_t count = std::min(kPageWords, shared.words - first);
    for (std::uint64_t i = 0; i < count; i++)
      low[i] = exact ? model.now(first + i).load() : model.promised(first + i).load();
    if (::pread(fd, seen.data(), count * 8, static_cast<off_t>(first * 8)) !=
        static_cast<ssize_t>(count * 8))
      die("%s: page %lu cannot be read: %s", path.c_str(), first / kPageWords,
          std::strerror(errno));
    for (std::uint64_t i = 0; i < count; i++) {
      const bool same = seen[i] == model.value(first + i, low[i]);
      if (!same && (exact || !model.may_be(first + i, seen[i], low[i])))
        die("%s: seed %lu: %s", path.c_str(), shared.seed,
            model.what(first + i, seen[i], low[i]).c_str());
      changed += low[i] != 0;
      newer += !same;
    }
  }
  std::printf("%lu words: %lu %s, %lu are newer than promised\n", shared.words, changed,
              exact ? "were written" : "were written and promised", newer);
  return 0;
}

int progress(const Options& options) {
  if (options.rest.size() != 1) die("progress: ORACLE is needed");
  Model model(options.rest[0].c_str());
  std::printf("%lu\n", model.shared().operations.load());
  return 0;
}

Options parse(int argc, char** argv) {
  Options options;
  const char* seed = std::getenv("RMEM_SEED");
  if (seed != nullptr) options.seed = number(seed);
  for (int i = 2; i < argc; i++) {
    const std::string_view arg = argv[i];
    const auto value = [&]() -> const char* {
      if (i + 1 == argc) die("%s needs a value", argv[i]);
      return argv[++i];
    };
    if (arg == "--seed")
      options.seed = number(value());
    else if (arg == "--oracle")
      options.oracle = value();
    else if (arg == "--replay")
      options.replay = value();
    else if (arg == "--ops")
      options.ops = number(value());
    else if (arg == "--seconds")
      options.seconds = number(value());
    else if (arg == "--processes")
      options.processes = static_cast<unsigned>(number(value()));
    else if (arg == "--plant")
      options.plant = number(value());
    else if (arg == "--errors")
      options.errors = true;
    else if (arg == "--no-punch")
      options.punch = false;
    else if (arg.substr(0, 2) == "--")
      die("no option %s; the source begins with a list", argv[i]);
    else
      options.rest.emplace_back(arg);
  }
  options.paths = options.rest;
  if (options.processes < 1 || options.processes > 127) die("1 to 127 processes");
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view verb = argc > 1 ? argv[1] : "";
  const Options options = parse(argc, argv);
  if (verb == "make") return make(options);
  if (verb == "run") return run(options);
  if (verb == "check") return check(options);
  if (verb == "progress") return progress(options);
  std::fprintf(stderr,
               "usage: rmem-fsx make|run|check|progress ...; the source begins with a list\n");
  return 2;
}
