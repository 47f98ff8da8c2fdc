// SPDX-License-Identifier: MIT
#include "store/dir.hh"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include "support/store_ops.hh"
#include "support/temp_dir.hh"

namespace rmem::store {
namespace {

namespace fs = std::filesystem;
using test::pattern;

constexpr std::uint64_t kChunk = 64 << 10;
constexpr std::uint64_t kSize = 10 * kChunk + 777;
const DirOptions kNew{.size = kSize, .chunk = kChunk};

class DirStoreTest : public testing::Test {
 protected:
  std::unique_ptr<DirStore> open(const DirOptions& options = {}) {
    auto made = DirStore::open(*workers, dir / "store", options);
    EXPECT_TRUE(made.ok()) << made.status().cause();
    return made ? std::move(made).value() : nullptr;
  }
  Status failure(const DirOptions& options = {}) {
    return DirStore::open(*workers, dir / "store", options).status();
  }
  std::string chunk(unsigned number) const {
    char name[32];
    std::snprintf(name, sizeof name, "store/%03x/%06x", number >> 12, number);
    return dir / name;
  }
  // A store with `bytes` at 0, flushed and closed.
  void fill(std::span<const std::byte> bytes) {
    const auto store = open(kNew);
    test::StoreOps ops(loop, *store);
    ASSERT_EQ(ops.write(0, bytes).err, 0);
    ASSERT_EQ(ops.flush().err, 0);
  }

  test::TempDir dir;
  test::Loop loop;
  std::unique_ptr<Workers> workers = std::move(Workers::create(loop.reactor(), 2)).value();
};

TEST_F(DirStoreTest, WhatWasFlushedIsFoundAgain) {
  const auto bytes = pattern(3 * kChunk, 1);
  fill(bytes);
  const auto store = open();
  test::StoreOps ops(loop, *store);
  EXPECT_EQ(store->geometry().size, kSize);
  EXPECT_EQ(store->chunk(), kChunk);
  EXPECT_TRUE(ops.read(0, bytes.size()) == bytes);
  EXPECT_EQ(ops.read(bytes.size(), std::size_t{100}), std::vector<std::byte>(100));
}

TEST_F(DirStoreTest, ChunksAreFilesOfTheirLengthInGroups) {
  const std::uint64_t size = 5000 * kChunk + 5;
  const auto store = open({.size = size, .chunk = kChunk});
  test::StoreOps ops(loop, *store);
  for (const std::uint64_t at : {4095 * kChunk, 4096 * kChunk, size - 1})
    ASSERT_EQ(ops.write(at, pattern(1, 1)).err, 0);
  EXPECT_EQ(fs::file_size(dir / "store/000/000fff"), kChunk);
  EXPECT_EQ(fs::file_size(dir / "store/001/001000"), kChunk);
  EXPECT_EQ(fs::file_size(dir / "store/001/001388"), 5u);
}

// --- holes -------------------------------------------------------------------

TEST_F(DirStoreTest, OnlyWhatHoldsSomethingHasAFile) {
  const auto store = open(kNew);
  test::StoreOps ops(loop, *store);
  const std::vector<std::byte> zeros(3 * kChunk);
  ASSERT_EQ(ops.write(0, zeros).err, 0);
  ASSERT_EQ(ops.zero(0, kSize).err, 0);
  std::vector<std::byte> bytes(2 * kChunk);
  bytes[kChunk] = std::byte{1};
  ASSERT_EQ(ops.write(3 * kChunk, bytes).err, 0);
  EXPECT_FALSE(fs::exists(chunk(0)));
  EXPECT_FALSE(fs::exists(chunk(3)));
  EXPECT_TRUE(fs::exists(chunk(4)));
}

TEST_F(DirStoreTest, ZeroFreesSpaceAndFiles) {
  fill(pattern(3 * kChunk, 1));
  const auto store = open();
  test::StoreOps ops(loop, *store);
  struct stat before = {}, after = {};
  ::stat(chunk(1).c_str(), &before);
  ASSERT_EQ(ops.zero(kChunk / 2, kChunk).err, 0);
  ::stat(chunk(1).c_str(), &after);
  EXPECT_LT(after.st_blocks, before.st_blocks);
  // Whole at once, in pieces, and by writing zeros.
  ASSERT_EQ(ops.zero(0, kChunk).err, 0);
  ASSERT_EQ(ops.zero(kChunk + kChunk / 2, kChunk / 2).err, 0);
  ASSERT_EQ(ops.write(2 * kChunk, std::vector<std::byte>(kChunk)).err, 0);
  ASSERT_EQ(ops.flush().err, 0);
  for (const unsigned i : {0, 1, 2}) EXPECT_FALSE(fs::exists(chunk(i))) << i;
  EXPECT_EQ(ops.read(0, 3 * kChunk), std::vector<std::byte>(3 * kChunk));
}

TEST_F(DirStoreTest, ChunkThatWasEmptiedAndWrittenAgainHasNothingOfTheOldBytes) {
  fill(pattern(kChunk, 1));
  const auto store = open();
  test::StoreOps ops(loop, *store);
  std::vector<std::byte> expected(kChunk);
  expected[5] = std::byte{7};
  for (const bool flush : {false, true}) {
    ASSERT_EQ(ops.write(0, pattern(kChunk, 2)).err, 0);
    ASSERT_EQ(ops.zero(0, kChunk).err, 0);
    if (flush) {
      ASSERT_EQ(ops.flush().err, 0);
    }
    ASSERT_EQ(ops.write(5, std::span(expected).subspan(5, 1)).err, 0);
    EXPECT_TRUE(ops.read(0, kChunk) == expected) << flush;
    ASSERT_EQ(ops.flush().err, 0);
    EXPECT_TRUE(ops.read(0, kChunk) == expected) << flush;
  }
}

TEST_F(DirStoreTest, LeftOverOfACrashIsNeverReadAndIsRemoved) {
  fill(pattern(1, 1));
  std::ofstream(chunk(3)) << std::string(kChunk, 'x');
  std::ofstream(dir / "store/manifest.new") << "half";
  std::ofstream(dir / "store/000/README") << "not ours";
  const auto store = open();
  test::StoreOps ops(loop, *store);
  EXPECT_FALSE(fs::exists(chunk(3)));
  EXPECT_TRUE(fs::exists(dir / "store/000/README"));
  EXPECT_EQ(ops.read(3 * kChunk, kChunk), std::vector<std::byte>(kChunk));
  // One that appears later is not taken for ours either.
  std::ofstream(chunk(4)) << std::string(2 * kChunk, 'x');
  EXPECT_EQ(ops.read(4 * kChunk, kChunk), std::vector<std::byte>(kChunk));
  ASSERT_EQ(ops.write(4 * kChunk, pattern(1, 1)).err, 0);
  EXPECT_EQ(ops.read(4 * kChunk + 1, kChunk - 1), std::vector<std::byte>(kChunk - 1));
}

// --- what is damaged ---------------------------------------------------------

TEST_F(DirStoreTest, MissingOrShortChunkIsAnErrorNotZeros) {
  fill(pattern(4 * kChunk, 1));
  fs::remove(chunk(0));
  fs::resize_file(chunk(1), kChunk - 1);
  fs::remove(chunk(2));
  fs::create_directory(chunk(2));
  for (const bool read_only : {false, true}) {
    const auto store = open({.read_only = read_only});
    test::StoreOps ops(loop, *store);
    std::vector<std::byte> bytes(100);
    for (const std::uint64_t i : {0, 1, 2}) {
      EXPECT_EQ(ops.read(i * kChunk, std::span(bytes)).err, EIO) << i;
      if (!read_only) {
        EXPECT_EQ(ops.write(i * kChunk, pattern(1, 1)).err, EIO) << i;
        EXPECT_EQ(ops.zero(i * kChunk, 1).err, EIO) << i;
      }
    }
    EXPECT_EQ(ops.read(3 * kChunk, std::span(bytes)).err, 0);
    // Across the border: all or nothing.
    EXPECT_EQ(ops.read(3 * kChunk - 50, std::span(bytes)).err, EIO);
  }
}

TEST_F(DirStoreTest, ZeroingAMissingChunkAsAWholeRepairsIt) {
  fill(pattern(2 * kChunk, 1));
  fs::remove(chunk(0));
  fs::resize_file(chunk(1), kChunk / 2);
  const auto store = open();
  test::StoreOps ops(loop, *store);
  ASSERT_EQ(ops.zero(0, 2 * kChunk).err, 0);
  EXPECT_EQ(ops.read(0, 2 * kChunk), std::vector<std::byte>(2 * kChunk));
  std::vector<std::byte> expected(2 * kChunk);
  expected[10] = expected[kChunk + 10] = std::byte{9};
  ASSERT_EQ(ops.write(10, std::span(expected).subspan(10, 1)).err, 0);
  ASSERT_EQ(ops.write(kChunk + 10, std::span(expected).subspan(10, 1)).err, 0);
  EXPECT_TRUE(ops.read(0, 2 * kChunk) == expected);
}

TEST_F(DirStoreTest, ChunkTakenAwayWhileItIsOpenFailsWritesAndFlush) {
  const auto store = open(kNew);
  test::StoreOps ops(loop, *store);
  ASSERT_EQ(ops.write(0, pattern(2 * kChunk, 1)).err, 0);
  fs::remove(chunk(0));
  fs::resize_file(chunk(1), 1);
  EXPECT_EQ(ops.write(0, pattern(1, 1)).err, EIO);
  EXPECT_EQ(ops.write(kChunk + 100, pattern(1, 1)).err, EIO);
  std::vector<std::byte> bytes(1);
  EXPECT_EQ(ops.read(kChunk + 100, std::span(bytes)).err, EIO);
  const std::uint64_t epoch = store->geometry().epoch;
  EXPECT_EQ(ops.flush().err, EIO);
  EXPECT_NE(store->geometry().epoch, epoch);
}

TEST_F(DirStoreTest, DamagedManifestIsCorruptAndTouchesNothing) {
  fill(pattern(kChunk, 1));
  std::fstream file(dir / "store/manifest", std::ios::in | std::ios::out | std::ios::binary);
  const auto there = static_cast<char>(file.seekg(20).peek());  // of its UUID
  file.seekp(20).put(static_cast<char>(there ^ 1));
  file.close();
  for (const DirOptions& options : {DirOptions{}, kNew, DirOptions{.read_only = true}}) {
    const Status status = failure(options);
    EXPECT_EQ(status.code(), Code::kCorrupt);
    EXPECT_NE(status.cause().find("manifest"), std::string::npos);
    EXPECT_FALSE(status.hint().empty());
  }
  EXPECT_TRUE(fs::exists(chunk(0)));
}

// --- opening -----------------------------------------------------------------

TEST_F(DirStoreTest, MissingOneIsNotFoundWithTheNextStep) {
  for (const bool made : {false, true}) {
    if (made) fs::create_directory(dir / "store");
    for (const DirOptions& options : {DirOptions{}, DirOptions{.read_only = true, .size = kSize}}) {
      const Status status = failure(options);
      EXPECT_EQ(status.code(), Code::kNotFound);
      EXPECT_NE(status.hint().find("?size="), std::string::npos);
    }
  }
  EXPECT_TRUE(fs::is_empty(dir / "store"));
  EXPECT_EQ(open({.size = kSize})->chunk(), DirOptions::kDefaultChunk);
}

TEST_F(DirStoreTest, OtherSizeOrChunkThanAskedForIsCorrupt) {
  fill(pattern(1, 1));
  EXPECT_EQ(failure({.size = kSize + 1}).code(), Code::kCorrupt);
  EXPECT_EQ(failure({.chunk = 2 * kChunk}).code(), Code::kCorrupt);
  EXPECT_NE(failure({.chunk = 2 * kChunk}).cause().find("128KiB"), std::string::npos);
  EXPECT_EQ(open(kNew)->geometry().size, kSize);
}

TEST_F(DirStoreTest, WhatIsNoStoreIsLeftAlone) {
  std::ofstream(dir / "store") << "a file";
  EXPECT_EQ(failure(kNew).code(), Code::kFailed);
  fs::remove(dir / "store");
  fs::create_directories(dir / "store/000");
  const Status status = failure(kNew);
  EXPECT_EQ(status.code(), Code::kFailed);
  EXPECT_NE(status.cause().find("no manifest"), std::string::npos);
}

TEST_F(DirStoreTest, ImpossibleSizesMakeNoDirectory) {
  EXPECT_EQ(failure({.size = kSize, .chunk = 5000}).code(), Code::kUsage);
  EXPECT_EQ(failure({.size = 1ull << 50}).code(), Code::kUsage);
  EXPECT_FALSE(fs::exists(dir / "store"));
}

TEST_F(DirStoreTest, UnfinishedCreationIsTakenUp) {
  fs::create_directory(dir / "store");
  std::ofstream(dir / "store/manifest.new") << "half";
  EXPECT_EQ(open(kNew)->geometry().size, kSize);
}

TEST_F(DirStoreTest, OneWriterOrManyReaders) {
  auto writer = open(kNew);
  EXPECT_EQ(failure().code(), Code::kBusy);
  EXPECT_EQ(failure({.read_only = true}).code(), Code::kBusy);
  writer.reset();
  auto reader = open({.read_only = true});
  const auto another = open({.read_only = true});
  EXPECT_EQ(failure().code(), Code::kBusy);
}

TEST_F(DirStoreTest, LettingGoLeavesItToOthers) {
  const auto first = open(kNew);
  first->let_go();
  const auto second = open();
  test::StoreOps ops(loop, *first);
  EXPECT_EQ(ops.write(0, pattern(1, 1)).err, EROFS);
}

TEST_F(DirStoreTest, ReadOnlyIsNotWritten) {
  fill(pattern(1, 1));
  const auto store = open({.read_only = true});
  test::StoreOps ops(loop, *store);
  EXPECT_TRUE(store->geometry().read_only);
  EXPECT_EQ(ops.write(0, pattern(1, 1)).err, EROFS);
  EXPECT_EQ(ops.zero(0, 1).err, EROFS);
  EXPECT_EQ(ops.flush().err, EROFS);
  EXPECT_EQ(ops.read(0, std::size_t{1}), pattern(1, 1));
}

TEST_F(DirStoreTest, IdentityStaysWhenItMovesAndACopyIsAnother) {
  fill(pattern(1, 1));
  const Uuid identity = open()->geometry().identity;
  EXPECT_EQ(open()->geometry().identity, identity);
  EXPECT_EQ(*open()->facts().identity, identity);
  fs::rename(dir / "store", dir / "moved");
  fs::copy(dir / "moved", dir / "store", fs::copy_options::recursive);
  EXPECT_NE(open()->geometry().identity, identity);
  fs::remove_all(dir / "store");
  fs::rename(dir / "moved", dir / "store");
  EXPECT_EQ(open()->geometry().identity, identity);
  fs::remove_all(dir / "store");
  EXPECT_NE(open(kNew)->geometry().identity, identity);
}

// --- flush -------------------------------------------------------------------

TEST_F(DirStoreTest, FailedSyncOfAnythingFailsTheFlushAndChangesTheEpoch) {
  // The n-th sync from now on fails; a flush of a new chunk makes five: chunk,
  // group, directory, manifest, directory.
  std::atomic<int> fail_in = 0;
  std::atomic<int> syncs = 0;
  auto options = kNew;
  options.sync = [&](int) {
    ++syncs;
    if (--fail_in != 0) return 0;
    errno = EIO;
    return -1;
  };
  const auto store = open(options);
  test::StoreOps ops(loop, *store);
  for (const int nth : {1, 2, 3, 4, 5}) {
    const std::uint64_t at = static_cast<std::uint64_t>(nth) * kChunk;
    const Outcome written = ops.write(at, pattern(100, 1));
    ASSERT_EQ(written.err, 0);
    fail_in = nth;
    EXPECT_EQ(ops.flush().err, EIO) << nth;
    EXPECT_NE(store->geometry().epoch, written.epoch) << nth;
    // The next one catches up on what this one left out.
    fail_in = 0;
    syncs = 0;
    const Outcome again = ops.write(at, pattern(100, 2));
    EXPECT_EQ(ops.flush().epoch, again.epoch) << nth;
    EXPECT_EQ(syncs, 5) << nth;
  }
  const auto bytes = pattern(100, 2);
  for (const std::uint64_t i : {1, 2, 3, 4, 5}) EXPECT_EQ(ops.read(i * kChunk, 100), bytes);
}

TEST_F(DirStoreTest, FlushOfNothingSyncsNothing) {
  std::atomic<int> syncs = 0;
  auto options = kNew;
  options.sync = [&](int) {
    ++syncs;
    return 0;
  };
  const auto store = open(options);
  test::StoreOps ops(loop, *store);
  ops.write(0, pattern(100, 1));
  ops.flush();
  syncs = 0;
  EXPECT_EQ(ops.flush().err, 0);
  EXPECT_EQ(syncs, 0);
  // A chunk that is listed already: its data alone.
  ops.write(50, pattern(100, 1));
  EXPECT_EQ(ops.flush().err, 0);
  EXPECT_EQ(syncs, 1);
}

TEST_F(DirStoreTest, ChunkThatGivesWayToAnotherIsSyncedFirstAndItsFailureIsTold) {
  std::atomic<bool> fail = false;
  const DirOptions options{.size = 1000 * kChunk, .chunk = kChunk, .sync = [&](int) {
                             if (!fail) return 0;
                             errno = ENOSPC;
                             return -1;
                           }};
  const auto store = open(options);
  test::StoreOps ops(loop, *store);
  ASSERT_EQ(ops.write(0, pattern(100, 1)).err, 0);
  fail = true;
  // The same slot, 256 chunks on.
  ASSERT_EQ(ops.write(256 * kChunk, pattern(100, 1)).err, 0);
  fail = false;
  EXPECT_EQ(ops.flush().err, ENOSPC);
  EXPECT_EQ(ops.flush().err, 0);
}

// A limit on the length of files, as a disk that is full when it matters.
class ShortFiles {
 public:
  explicit ShortFiles(rlim_t most) {
    ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit = {most, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~ShortFiles() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    ::signal(SIGXFSZ, SIG_DFL);
  }

 private:
  rlimit before_ = {};
};

TEST_F(DirStoreTest, EmptiedChunkIsNotShortForAMomentWhileAManifestMayListIt) {
  for (const bool during_flush : {false, true}) {
    std::atomic<bool> hold = during_flush, holding = false;
    const DirOptions options{.size = 1000 * kChunk, .chunk = kChunk, .sync = [&](int fd) {
                               const auto path =
                                   fs::read_symlink("/proc/self/fd/" + std::to_string(fd));
                               while (hold && path.filename() == "manifest.new") holding = true;
                               return 0;
                             }};
    hold = false;
    auto store = open(options);
    hold = during_flush;
    test::StoreOps ops(loop, *store);
    ASSERT_EQ(ops.write(0, pattern(kChunk, 1)).err, 0);
    test::Pending flush;
    store->flush(flush.done());
    if (during_flush)
      while (!holding) std::this_thread::yield();
    else
      loop.until([&] { return flush.over; });
    ASSERT_EQ(ops.zero(0, kChunk).err, 0);
    ASSERT_EQ(ops.write(256 * kChunk, pattern(1, 1)).err, 0);  // takes its slot
    {
      const ShortFiles limit(kChunk - 1);
      EXPECT_EQ(ops.write(0, pattern(1, 1)).err, 0);
    }
    hold = false;
    loop.until([&] { return flush.over; });
    store = nullptr;
    store = open(options);
    test::StoreOps again(loop, *store);
    std::vector<std::byte> bytes(kChunk);
    EXPECT_EQ(again.read(0, std::span(bytes)).err, 0) << during_flush;
    store = nullptr;
    fs::remove_all(dir / "store");
  }
}

}  // namespace
}  // namespace rmem::store
