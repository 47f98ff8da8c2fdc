// SPDX-License-Identifier: MIT
#include "store/file.hh"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <fstream>

#include "support/store_ops.hh"
#include "support/temp_dir.hh"

namespace rmem::store {
namespace {

class FileStoreTest : public testing::Test {
 protected:
  explicit FileStoreTest(test::TempDir::Where where = test::TempDir::Where::kDisk) : dir(where) {}
  std::unique_ptr<FileStore> open(const FileOptions& options = {}) {
    auto made = FileStore::open(*workers, dir / "file", options);
    EXPECT_TRUE(made.ok()) << made.status().cause();
    return std::move(made).value();
  }
  Status failure(const FileOptions& options = {}) {
    return FileStore::open(*workers, dir / "file", options).status();
  }

  // It is no longer in memory, if it has to lie on a disk.
  void uncache() {
    const UniqueFd fd(::open((dir / "file").c_str(), O_RDONLY | O_CLOEXEC));
    ASSERT_EQ(::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
  }

  test::TempDir dir;
  test::Loop loop;
  std::unique_ptr<Workers> workers = std::move(Workers::create(loop.reactor(), 2)).value();
};

TEST_F(FileStoreTest, MissingFileIsNotFoundWithTheNextStep) {
  const Status status = failure();
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_NE(status.hint().find("?size="), std::string::npos);
}

TEST_F(FileStoreTest, CreatedFileIsSparseAndOfTheExactSize) {
  EXPECT_EQ(open({.size = 5'000'001})->geometry().size, 5'000'001u);
  struct stat info = {};
  ASSERT_EQ(::stat((dir / "file").c_str(), &info), 0);
  EXPECT_EQ(info.st_size, 5'000'001);
  EXPECT_LT(info.st_blocks, 100);
}

TEST_F(FileStoreTest, OtherSizeThanAskedForIsCorrupt) {
  open({.size = 4096});
  EXPECT_EQ(failure({.size = 8192}).code(), Code::kCorrupt);
  EXPECT_EQ(open()->geometry().size, 4096u);
}

TEST_F(FileStoreTest, ReadOnlyIsNotCreatedAndNotWritten) {
  EXPECT_EQ(failure({.read_only = true, .size = 4096}).code(), Code::kNotFound);
  open({.size = 4096});
  const auto store = open({.read_only = true});
  test::StoreOps ops(loop, *store);
  EXPECT_TRUE(store->geometry().read_only);
  EXPECT_EQ(ops.write(0, test::pattern(1, 1)).err, EROFS);
  EXPECT_EQ(ops.zero(0, 1).err, EROFS);
  EXPECT_EQ(ops.flush().err, EROFS);
  EXPECT_EQ(ops.read(0, std::size_t{1}), std::vector<std::byte>(1));
}

TEST_F(FileStoreTest, SameFileSameIdentityOtherFileAnother) {
  const Uuid identity = open({.size = 4096})->geometry().identity;
  EXPECT_EQ(open()->geometry().identity, identity);
  // A new file of the same size takes the name.
  ASSERT_EQ(::rename((dir / "file").c_str(), (dir / "old").c_str()), 0);
  EXPECT_NE(open({.size = 4096})->geometry().identity, identity);
}

TEST_F(FileStoreTest, WhatIsNotCachedComesFromTheDisk) {
  const auto bytes = test::pattern(3'000'000, 1);
  const auto store = open({.size = 4'000'000});
  test::StoreOps ops(loop, *store);
  ASSERT_EQ(ops.write(500, bytes).err, 0);
  ASSERT_EQ(ops.flush().err, 0);
  uncache();
  EXPECT_TRUE(ops.read(500, bytes.size()) == bytes);
}

TEST_F(FileStoreTest, FileCutShortBehindOurBackIsAnErrorNotZeros) {
  const auto store = open({.size = 100'000});
  test::StoreOps ops(loop, *store);
  ASSERT_EQ(::truncate((dir / "file").c_str(), 50'000), 0);
  std::vector<std::byte> bytes(1000);
  EXPECT_EQ(ops.read(49'500, std::span(bytes)).err, EIO);
  EXPECT_EQ(ops.read(60'000, std::span(bytes)).err, EIO);
}

// On a disk and in memory.
class FileStoreViewTest : public FileStoreTest,
                          public testing::WithParamInterface<test::TempDir::Where> {
 protected:
  FileStoreViewTest() : FileStoreTest(GetParam()) {}
  Outcome view(Store& store, std::uint64_t offset, std::uint64_t length) {
    seen = {};
    test::Pending pending;
    store.view(offset, length, seen, pending.done());
    loop.until([&] { return pending.over; });
    return pending.outcome;
  }
  // As a system call copies them.
  std::vector<std::byte> copied() const {
    const test::TempDir other;
    const UniqueFd fd(::open((other / "copy").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (::write(fd.get(), seen.data(), seen.size()) != static_cast<ssize_t>(seen.size())) return {};
    std::vector<std::byte> bytes(seen.size());
    EXPECT_EQ(::pread(fd.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    return bytes;
  }

  std::span<const std::byte> seen;
};

TEST_P(FileStoreViewTest, IsWhatReadCopies) {
  const auto bytes = test::pattern(3'000'000, 1);
  {
    const auto store = open({.size = 4'000'001});
    test::StoreOps ops(loop, *store);
    ASSERT_EQ(ops.write(500, bytes).err, 0);
    ASSERT_EQ(ops.flush().err, 0);
  }
  for (const bool read_only : {false, true}) {
    const auto store = open({.read_only = read_only});
    uncache();
    ASSERT_TRUE(store->can_view(bytes.size()));
    for (int i = 0; i < 2; ++i) {
      EXPECT_EQ(view(*store, 500, bytes.size()).err, 0);
      EXPECT_TRUE(copied() == bytes);
    }
  }
}

TEST_P(FileStoreViewTest, FollowsWhatIsWritten) {
  const auto store = open({.size = 1 << 20});
  test::StoreOps ops(loop, *store);
  ASSERT_EQ(ops.write(0, test::pattern(1 << 20, 1)).err, 0);
  EXPECT_EQ(view(*store, 0, 1 << 20).err, 0);
  const auto newer = test::pattern(1 << 20, 2);
  ASSERT_EQ(ops.write(0, newer).err, 0);
  EXPECT_TRUE(copied() == newer);
}

TEST_P(FileStoreViewTest, SmallOnesAndZerosAreCopied) {
  const auto store = open({.size = 1 << 20});
  EXPECT_FALSE(store->can_view(4096));
  EXPECT_EQ(view(*store, 0, 1 << 20).err, 0);
  EXPECT_TRUE(seen.empty());
  EXPECT_EQ(view(*store, 1 << 19, 1 << 20).err, EINVAL);
}

TEST_P(FileStoreViewTest, FileCutShortBehindOurBackHasNone) {
  const auto store = open({.size = 1 << 20});
  test::StoreOps ops(loop, *store);
  ASSERT_EQ(ops.write(0, test::pattern(1 << 20, 1)).err, 0);
  ASSERT_EQ(::truncate((dir / "file").c_str(), 500'000), 0);
  for (const std::uint64_t offset : {0, 400'000, 600'000}) {
    const Outcome outcome = view(*store, offset, 1 << 18);
    if (offset == 0) {
      EXPECT_EQ(outcome.err, 0);
      EXPECT_EQ(seen.size(), 1u << 18);
    } else {
      EXPECT_TRUE(outcome.err != 0 || seen.empty()) << offset;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Where, FileStoreViewTest,
                         testing::Values(test::TempDir::Where::kDisk,
                                         test::TempDir::Where::kMemory));

TEST_F(FileStoreTest, ZeroFreesSpace) {
  const auto store = open({.size = 1 << 20});
  test::StoreOps ops(loop, *store);
  ops.write(0, test::pattern(1 << 20, 1));
  ops.flush();
  struct stat before = {}, after = {};
  ::stat((dir / "file").c_str(), &before);
  EXPECT_EQ(ops.zero(0, 1 << 20).err, 0);
  ::stat((dir / "file").c_str(), &after);
  EXPECT_LT(after.st_blocks, before.st_blocks);
  EXPECT_EQ(after.st_size, 1 << 20);
}

std::atomic<int> g_sync_error = 0;
int failing_sync(int) {
  if (g_sync_error == 0) return 0;
  errno = g_sync_error;
  return -1;
}

TEST_F(FileStoreTest, FailedFlushChangesTheEpochSoThatNothingBeforeItCountsAsSafe) {
  const auto store = open({.size = 1 << 20, .sync = failing_sync});
  test::StoreOps ops(loop, *store);
  const Outcome written = ops.write(0, test::pattern(4096, 1));
  g_sync_error = EIO;
  EXPECT_EQ(ops.flush().err, EIO);
  g_sync_error = 0;
  const Outcome flushed = ops.flush();
  EXPECT_EQ(flushed.err, 0);
  EXPECT_NE(flushed.epoch, written.epoch);
  EXPECT_EQ(ops.write(0, test::pattern(4096, 1)).epoch, flushed.epoch);
  g_sync_error = EDQUOT;
  EXPECT_EQ(ops.flush().err, ENOSPC);
  g_sync_error = 0;
}

TEST_F(FileStoreTest, WriteUnderWayDuringAFailedFlushHasTheOldEpoch) {
  const auto store = open({.size = 1 << 20, .sync = failing_sync});
  const std::uint64_t before = store->geometry().epoch;
  g_sync_error = EIO;
  const auto bytes = test::pattern(4096, 1);
  test::Pending write, flush;
  // The completion of the flush may be seen before that of the write.
  store->flush(flush.done());
  store->write(0, bytes, write.done());
  loop.until([&] { return flush.over && write.over; });
  g_sync_error = 0;
  EXPECT_EQ(flush.outcome.err, EIO);
  EXPECT_EQ(write.outcome.epoch, before);
  EXPECT_NE(store->geometry().epoch, before);
}

TEST_F(FileStoreTest, FlushesThatMeetShareOne) {
  static std::atomic<int> calls;
  calls = 0;
  const auto store = open({.size = 4096, .sync = [](int) {
                             ++calls;
                             return 0;
                           }});
  std::deque<test::Pending> flushes(50);
  for (auto& one : flushes) store->flush(one.done());
  loop.until([&] { return flushes.back().over && flushes.front().over; });
  EXPECT_EQ(calls, 2);
}

}  // namespace
}  // namespace rmem::store
