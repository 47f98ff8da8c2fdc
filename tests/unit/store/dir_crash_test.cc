// SPDX-License-Identifier: MIT
// What a dir store holds after its program, or its host, died at any moment.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <new>
#include <random>
#include <set>

#include "base/log.hh"
#include "store/dir.hh"
#include "support/slowness.hh"
#include "support/store_ops.hh"
#include "support/temp_dir.hh"

namespace rmem::store {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kBlock = 4096;
constexpr std::uint64_t kChunk = 2 * kBlock;

// RMEM_SEED=N repeats a run.
unsigned seed() {
  const char* const given = std::getenv("RMEM_SEED");
  const unsigned value = given != nullptr ? static_cast<unsigned>(std::strtoul(given, nullptr, 10))
                                          : std::random_device()();
  std::cout << "RMEM_SEED=" << value << std::endl;
  return value;
}

// Crashes leave things behind, and every store that is opened says so.
class DirStoreCrash : public testing::Test {
 protected:
  void SetUp() override { log::set_level(log::Level::kWarning); }
  void TearDown() override { log::set_level(log::Level::kInfo); }
};

// A block as its n-th writer left it; some of them zeroed it.
std::vector<std::byte> content(std::uint64_t block, unsigned version) {
  if (version % 4 == 0) return std::vector<std::byte>(kBlock);
  return test::pattern(kBlock, static_cast<unsigned>(block) * 100'003 + version);
}

// --- kill -9 -----------------------------------------------------------------

constexpr std::uint64_t kBlocks = 1200;  // 600 chunks: some share a slot

// What the child has done, in memory that outlives it.
struct Diary {
  std::atomic<unsigned> issued[kBlocks];
  std::atomic<unsigned> promised[kBlocks];
  std::atomic<unsigned> flushes;
};

// Writes and zeroes at random, several at once, and flushes beside them, until
// it is killed.
[[noreturn]] void scribble(const std::string& path, Diary& diary, unsigned seed) {
  std::mt19937 random(seed);
  test::Loop loop;
  const auto workers = std::move(Workers::create(loop.reactor(), 3)).value();
  // What the disk is told does not matter to who is only killed; and so there
  // are many flushes to be killed in.
  auto opened = DirStore::open(*workers, path, {.sync = [](int) { return 0; }});
  if (!opened) ::_exit(1);
  const auto store = std::move(opened).value();
  struct Operation {
    std::uint64_t block;
    std::uint64_t count;
    std::vector<std::byte> bytes;
    test::Pending pending;
  };
  std::vector<unsigned> acknowledged(kBlocks), flushing(kBlocks);
  for (std::uint64_t i = 0; i < kBlocks; ++i) acknowledged[i] = diary.issued[i];
  auto flush = std::make_unique<test::Pending>();
  flush->over = true;
  for (;;) {
    if (flush->over && random() % 3 == 0) {
      flushing = acknowledged;
      flush = std::make_unique<test::Pending>();
      store->flush(flush->done());
    }
    std::deque<Operation> operations(1 + random() % 4);
    for (Operation& one : operations) {
      one.count = 1 + random() % 6;
      one.block = random() % (kBlocks - one.count);
      bool zero = true;
      for (std::uint64_t i = one.block; i < one.block + one.count; ++i) {
        const unsigned version = ++diary.issued[i];
        zero &= version % 4 == 0;
        const auto bytes = content(i, version);
        one.bytes.insert(one.bytes.end(), bytes.begin(), bytes.end());
      }
      if (zero)
        store->zero(one.block * kBlock, one.bytes.size(), one.pending.done());
      else
        store->write(one.block * kBlock, one.bytes, one.pending.done());
    }
    loop.until([&] {
      return std::all_of(operations.begin(), operations.end(),
                         [](const Operation& one) { return one.pending.over; });
    });
    for (const Operation& one : operations) {
      if (one.pending.outcome.err != 0) ::_exit(2);
      for (std::uint64_t i = one.block; i < one.block + one.count; ++i)
        acknowledged[i] = diary.issued[i];
    }
    if (flush->over && flush->completions == 1) {
      flush->completions = 0;
      if (flush->outcome.err != 0) ::_exit(3);
      for (std::uint64_t i = 0; i < kBlocks; ++i) diary.promised[i] = flushing[i];
      ++diary.flushes;
    }
  }
}

TEST_F(DirStoreCrash, WhatWasFlushedSurvivesKill9AtAnyMoment) {
  std::mt19937 random(seed());
  const test::TempDir dir;
  void* const memory =
      ::mmap(nullptr, sizeof(Diary), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto& diary = *new (memory) Diary{};
  const auto open = [&](Workers& workers) {
    return DirStore::open(workers, dir / "store", {.size = kBlocks * kBlock, .chunk = kChunk});
  };
  for (int round = 0; round < 25; ++round) {
    // Made anew each time: who forks has no threads.
    {
      test::Loop loop;
      const auto workers = std::move(Workers::create(loop.reactor(), 1)).value();
      auto store = open(*workers);
      ASSERT_TRUE(store.ok()) << "round " << round << ": " << store.status().cause();
      test::StoreOps ops(loop, **store);
      for (std::uint64_t i = 0; i < kBlocks; ++i) {
        const auto bytes = ops.read(i * kBlock, kBlock);
        unsigned version = diary.promised[i];
        while (version <= diary.issued[i] && bytes != content(i, version)) ++version;
        ASSERT_LE(version, diary.issued[i])
            << "round " << round << ", block " << i << ": flushed was " << diary.promised[i];
        diary.promised[i] = diary.issued[i] = version;
      }
    }
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) scribble(dir / "store", diary, random());
    // Half of them early, half when there is something to lose.
    const unsigned before = diary.flushes;
    for (int i = 0; round % 2 != 0 && diary.flushes == before && i < 20'000; ++i) ::usleep(1000);
    ::usleep(random() % 50'000);
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child failed with " << WEXITSTATUS(status);
    random();
  }
  EXPECT_GE(diary.flushes, 12u);
  ::munmap(memory, sizeof(Diary));
}

// --- a reset of the host -----------------------------------------------------

// A disk that keeps only what was synced: the bytes of a file as of its last
// sync, the names in a directory as of its own.
class Disk {
 public:
  explicit Disk(std::string root) : root_(std::move(root)) {}

  int sync(int fd) {
    struct stat info = {};
    ::fstat(fd, &info);
    const std::string path = fs::read_symlink("/proc/self/fd/" + std::to_string(fd)).string();
    if (S_ISDIR(info.st_mode))
      names_[key(path)] = names_of(path);
    else
      bytes_[key(path)] = bytes_of(path);
    return 0;
  }

  // What a reset may leave at `to`: names and bytes each as they were synced at
  // last, or as they are now, since a kernel may write back what it wants.
  void reset(const std::string& to, bool synced_names, bool synced_bytes) const {
    fs::remove_all(to);
    copy(root_, key(root_), to, synced_names, synced_bytes);
  }

 private:
  using Key = std::pair<std::uint64_t, std::string>;
  struct Entry {
    Key key;
    bool directory;
    std::string path;  // when it was listed
  };
  using Names = std::map<std::string, Entry>;

  static Key key(const std::string& path) {
    struct statx info = {};
    ::statx(AT_FDCWD, path.c_str(), 0, STATX_BASIC_STATS | STATX_BTIME, &info);
    return {info.stx_ino,
            std::to_string(info.stx_btime.tv_sec) + "." + std::to_string(info.stx_btime.tv_nsec)};
  }
  static std::string bytes_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  static Names names_of(const std::string& path) {
    Names names;
    for (const auto& entry : fs::directory_iterator(path))
      names[entry.path().filename()] = {key(entry.path()), entry.is_directory(), entry.path()};
    return names;
  }

  void copy(const std::string& from, const Key& of, const std::string& to, bool synced_names,
            bool synced_bytes) const {
    fs::create_directory(to);
    Names names;
    if (!synced_names)
      names = names_of(from);
    else if (const auto known = names_.find(of); known != names_.end())
      names = known->second;
    for (const auto& [name, entry] : names) {
      if (entry.directory) {
        copy(entry.path, entry.key, to + "/" + name, synced_names, synced_bytes);
        continue;
      }
      std::string bytes;
      if (!synced_bytes && fs::exists(entry.path) && key(entry.path) == entry.key)
        bytes = bytes_of(entry.path);
      else if (const auto known = bytes_.find(entry.key); known != bytes_.end())
        bytes = known->second;
      std::ofstream(to + "/" + name, std::ios::binary) << bytes;
    }
  }

  const std::string root_;
  std::map<Key, Names> names_;
  std::map<Key, std::string> bytes_;
};

TEST_F(DirStoreCrash, WhatWasFlushedSurvivesAResetAtEverySync) {
  std::mt19937 random(seed());
  const test::TempDir dir;
  test::Loop loop;
  const auto workers = std::move(Workers::create(loop.reactor(), 1)).value();
  test::Loop other_loop;  // for the stores that are looked at from within a sync
  const auto other_workers = std::move(Workers::create(other_loop.reactor(), 1)).value();

  // Blocks at both ends, so that chunks share slots. For each the versions that
  // a reset may leave: the flushed one and those since.
  constexpr std::uint64_t kAll = 520;
  std::map<std::uint64_t, std::vector<unsigned>> possible;
  for (const std::uint64_t first : {0, 512})
    for (std::uint64_t i = 0; i < 8; ++i) possible[first + i] = {0};

  Disk disk(dir / "store");
  unsigned points = 0;
  const auto look = [&] {
    ++points;
    for (const bool names : {false, true})
      for (const bool bytes : {false, true}) {
        disk.reset(dir / "image", names, bytes);
        auto store =
            DirStore::open(*other_workers, dir / "image",
                           {.size = kAll * kBlock, .chunk = kChunk, .sync = [](int) { return 0; }});
        ASSERT_TRUE(store.ok()) << store.status().cause();
        test::StoreOps ops(other_loop, **store);
        for (const auto& [block, versions] : possible) {
          const auto found = ops.read(block * kBlock, kBlock);
          EXPECT_TRUE(std::any_of(
              versions.begin(), versions.end(),
              [&, block = block](unsigned version) { return found == content(block, version); }))
              << "point " << points << ", block " << block << ", names " << names << ", bytes "
              << bytes << (found.empty() ? ": not readable" : ": other bytes");
        }
      }
  };

  const DirOptions options{.size = kAll * kBlock, .chunk = kChunk, .sync = [&](int fd) {
                             look();
                             const int done = disk.sync(fd);
                             look();
                             return done;
                           }};
  auto store = DirStore::open(*workers, dir / "store", options);
  ASSERT_TRUE(store.ok()) << store.status().cause();
  test::StoreOps ops(loop, **store);
  unsigned version = 0;
  constexpr unsigned kSteps = test::kSlowness > 1 ? 30 : 120;
  for (unsigned step = 0; step < kSteps && !testing::Test::HasFailure(); ++step) {
    if (random() % 4 == 0) {
      ASSERT_EQ(ops.flush().err, 0);
      for (auto& [block, versions] : possible) versions = {versions.back()};
    } else {
      const std::uint64_t count = 1 + random() % 4;
      const std::uint64_t first = (random() % 2) * 512 + random() % (9 - count);
      const bool zero = random() % 2 == 0;
      version += zero ? 4 - version % 4 : 1 + (version % 4 == 3);
      std::vector<std::byte> bytes;
      for (std::uint64_t i = first; i < first + count; ++i) {
        possible[i].push_back(version);
        const auto block = content(i, version);
        bytes.insert(bytes.end(), block.begin(), block.end());
      }
      const Outcome outcome = zero && random() % 2 == 0 ? ops.zero(first * kBlock, bytes.size())
                                                        : ops.write(first * kBlock, bytes);
      ASSERT_EQ(outcome.err, 0);
    }
    look();
  }
  EXPECT_GT(points, 5 * kSteps / 3);
}

}  // namespace
}  // namespace rmem::store
