// SPDX-License-Identifier: MIT
#include "server/export.hh"

#include <gtest/gtest.h>

#include <cerrno>
#include <fstream>

#include "store/mem.hh"
#include "support/loop.hh"
#include "support/temp_dir.hh"

namespace rmem::server {
namespace {

TEST(ExportSpec, NameStoreAndReadOnly) {
  const auto spec = ExportSpec::parse("data=file:///srv/a,b,ro");
  ASSERT_TRUE(spec.ok());
  EXPECT_EQ(spec->name, "data");
  EXPECT_EQ(spec->store.path, "/srv/a,b");
  EXPECT_TRUE(spec->read_only);
  EXPECT_FALSE(ExportSpec::parse("data=mem://1GiB")->read_only);
  EXPECT_EQ(*ExportSpec::parse("d=file:///a?size=1MiB")->store.size, 1u << 20);
}

TEST(ExportSpec, EverythingElseIsAUsageError) {
  for (const char* text : {"",
                           "data",
                           "=mem://1",
                           "a b=mem://1",
                           ".a=mem://1",
                           "a/b=mem://1",
                           "a=",
                           "a=/srv/a",
                           "a=mem://",
                           "a=mem://0",
                           "a=mem://1GB",
                           "a=mem://1?x=y",
                           "a=file://",
                           "a=file://host/a",
                           "a=file:///a?size=x",
                           "a=file:///a?size=0",
                           "a=file:///a?chunk=1",
                           "a=dir://",
                           "a=dir://host/a",
                           "a=dir:///a?size=0",
                           "a=dir:///a?size=1MiB&chunk=x",
                           "a=dir:///a?sizes=1",
                           "a=stats+mem://",
                           "a=error+mem://1?error.x=1",
                           "a=mem://1?error.read=1",
                           "a=nofilter+mem://1"}) {
    const auto spec = ExportSpec::parse(text);
    ASSERT_FALSE(spec.ok()) << text;
    EXPECT_EQ(spec.status().code(), Code::kUsage) << text;
  }
}

class ExportsTest : public testing::Test {
 protected:
  Result<Exports> open(std::initializer_list<const char*> texts,
                       const std::string& state = "state") {
    std::vector<ExportSpec> specs;
    for (std::string text : texts) {
      if (const auto at = text.find("DIR"); at != std::string::npos)
        text.replace(at, 3, dir.path());
      specs.push_back(*ExportSpec::parse(text));
    }
    return Exports::open(loop.reactor(), *workers, specs, dir / state);
  }
  test::TempDir dir;
  test::Loop loop;
  std::unique_ptr<Workers> workers = std::move(Workers::create(loop.reactor(), 1)).value();
};

TEST_F(ExportsTest, TwoNamesOfOneFileAreOneStore) {
  std::ofstream(dir / "file") << "hello";
  ASSERT_EQ(::symlink("file", (dir / "link").c_str()), 0);
  const auto exports =
      open({"a=file://DIR/file,ro", "b=file://DIR/link", "c=mem://1", "d=mem://1"});
  ASSERT_TRUE(exports.ok()) << exports.status().cause();
  EXPECT_EQ(exports->find("a")->store, exports->find("b")->store);
  EXPECT_FALSE(exports->find("b")->store->store().geometry().read_only);
  EXPECT_TRUE(exports->find("a")->read_only);
  EXPECT_NE(exports->find("c")->store, exports->find("d")->store);
  EXPECT_EQ(exports->find("e"), nullptr);
}

TEST_F(ExportsTest, NameGivenTwiceIsAUsageError) {
  EXPECT_EQ(open({"a=mem://1", "a=mem://2"}).status().code(), Code::kUsage);
}

TEST_F(ExportsTest, MissingFileIsNotFound) {
  EXPECT_EQ(open({"a=file://DIR/none"}).status().code(), Code::kNotFound);
}

TEST_F(ExportsTest, FileOfAnotherSizeIsCorrupt) {
  std::ofstream(dir / "file") << "hello";
  const Status status = open({"a=file://DIR/file?size=1MiB"}).status();
  EXPECT_EQ(status.code(), Code::kCorrupt);
  EXPECT_NE(status.cause().find("file"), std::string::npos);
}

TEST_F(ExportsTest, FileIsCreatedSparseAndFoundAgain) {
  Uuid identity;
  {
    const auto exports = open({"a=file://DIR/new?size=1TiB"});
    ASSERT_TRUE(exports.ok()) << exports.status().cause();
    EXPECT_EQ(exports->find("a")->store->store().geometry().size, 1ull << 40);
    identity = exports->find("a")->store->store().geometry().identity;
  }
  const auto again = open({"a=file://DIR/new"});
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->find("a")->store->store().geometry().identity, identity);
}

TEST_F(ExportsTest, DirectoryAndEmptyFileAreRefused) {
  std::ofstream{dir / "empty"}.close();
  EXPECT_FALSE(open({"a=file://DIR/empty"}).ok());
  EXPECT_FALSE(open({"a=file://DIR,ro"}).ok());
}

TEST_F(ExportsTest, DirectoryIsMadeAndFoundAgain) {
  Uuid identity;
  {
    const auto exports = open({"a=dir://DIR/new?size=1TiB&chunk=4MiB", "b=dir://DIR/new,ro"});
    ASSERT_TRUE(exports.ok()) << exports.status().cause();
    const auto served = exports->find("a")->store;
    EXPECT_EQ(served->store().geometry().size, 1ull << 40);
    EXPECT_EQ(exports->find("b")->store, served);
    identity = served->store().geometry().identity;
    // By a server that has a state directory of its own.
    EXPECT_EQ(open({"c=dir://DIR/new"}, "other").status().code(), Code::kBusy);
  }
  for (const char* text : {"a=dir://DIR/new", "a=dir://DIR/new,ro"}) {
    const auto again = open({text});
    ASSERT_TRUE(again.ok()) << again.status().cause();
    EXPECT_EQ(again->find("a")->store->store().geometry().identity, identity);
  }
}

TEST_F(ExportsTest, FiltersAreOnTheStoreNotOnTheName) {
  const auto exports = open({"a=error+file://DIR/f?size=1MiB&error.read=1",
                             "b=error+file://DIR/f?error.read=1,ro", "c=mem://1"});
  ASSERT_TRUE(exports.ok()) << exports.status().cause();
  ServedStore& served = *exports->find("a")->store;
  EXPECT_EQ(exports->find("b")->store.get(), &served);
  std::byte byte{};
  int err = 0;
  served.store().read(
      0, {&byte, 1},
      {[](void* ctx, const store::Outcome& outcome) { *static_cast<int*>(ctx) = outcome.err; },
       &err});
  EXPECT_EQ(err, EIO);
  const Status status =
      open({"a=file://DIR/g?size=1MiB", "b=stats+file://DIR/g"}, "other").status();
  EXPECT_EQ(status.code(), Code::kUsage);
  EXPECT_NE(status.cause().find("filters"), std::string::npos);
}

TEST_F(ExportsTest, SecondNameWithAnotherSizeOrChunkIsCorrupt) {
  EXPECT_EQ(open({"a=dir://DIR/d?size=1MiB", "b=dir://DIR/d?size=2MiB"}).status().code(),
            Code::kCorrupt);
  EXPECT_EQ(open({"a=dir://DIR/d", "b=dir://DIR/d?chunk=4KiB"}).status().code(), Code::kCorrupt);
  EXPECT_EQ(open({"a=file://DIR/f?size=1MiB", "b=file://DIR/f?size=2MiB,ro"}).status().code(),
            Code::kCorrupt);
}

TEST_F(ExportsTest, MemoryAloneNeedsNoStateDirectory) {
  ASSERT_TRUE(open({"a=mem://1MiB"}).ok());
  EXPECT_FALSE(std::filesystem::exists(dir / "state"));
}

// Somebody who has claimed, and what befell him.
struct Somebody final : Claimant {
  void superseded() override { ++superseded_calls; }
  void fenced() override { ++fenced_calls; }
  int superseded_calls = 0, fenced_calls = 0;
};

struct Answer {
  int err = -1;
  std::uint64_t generation = 0;
  ServedStore::Claimed take() {
    return [this](int error, std::uint64_t number) { err = error, generation = number; };
  }
};

TEST(ServedStore, AnswersAClaimOnlyWhenOldWritesAreDone) {
  ServedStore served{store::LocalStore(std::make_unique<store::MemStore>(4096))};
  Somebody old, young;
  Answer first, second;
  served.claim({.writer = {1}, .session = 1}, old, first.take());
  EXPECT_EQ(first.err, 0);
  served.modification_started();
  served.modification_started();
  served.claim({.writer = {1}, .session = 2}, young, second.take());
  EXPECT_EQ(old.superseded_calls, 1);
  EXPECT_EQ(second.err, -1);
  served.modification_finished();
  EXPECT_EQ(second.err, -1);
  served.modification_finished();
  EXPECT_EQ(second.err, 0);
  EXPECT_EQ(second.generation, 1u);
}

TEST(ServedStore, ClaimantThatLeavesHearsNothingMore) {
  ServedStore served{store::LocalStore(std::make_unique<store::MemStore>(4096))};
  Answer answer;
  served.modification_started();
  {
    Somebody gone;
    served.claim({.writer = {1}, .session = 1}, gone, answer.take());
    served.leave(gone);
  }
  served.modification_finished();
  EXPECT_EQ(answer.err, -1);
  // The claim is still the writer's.
  Somebody other;
  served.claim({.writer = {2}, .session = 1}, other, answer.take());
  EXPECT_EQ(answer.err, EBUSY);
}

TEST(ServedStore, WaitingClaimThatIsTakenOverIsStale) {
  ServedStore served{store::LocalStore(std::make_unique<store::MemStore>(4096))};
  Somebody one, two;
  Answer first, second;
  served.modification_started();
  served.claim({.writer = {1}, .session = 1}, one, first.take());
  served.claim({.writer = {2}, .session = 1, .take_over = true}, two, second.take());
  EXPECT_EQ(one.fenced_calls, 1);
  EXPECT_EQ(first.err, ESTALE);
  served.modification_finished();
  EXPECT_EQ(second.err, 0);
  EXPECT_TRUE(served.claimed_by(two));
  EXPECT_FALSE(served.claimed_by(one));
}

TEST(ServedStore, ReleaseNeedsTheClaim) {
  ServedStore served{store::LocalStore(std::make_unique<store::MemStore>(4096))};
  Somebody one, two;
  Answer answer;
  EXPECT_EQ(served.release(one), EPERM);
  served.claim({.writer = {1}, .session = 9}, one, answer.take());
  EXPECT_EQ(served.release(two), EPERM);
  EXPECT_EQ(served.release(one), 0);
  served.claim({.writer = {2}, .session = 1}, two, answer.take());
  EXPECT_EQ(answer.err, 0);
  EXPECT_EQ(answer.generation, 2u);
}

}  // namespace
}  // namespace rmem::server
