// SPDX-License-Identifier: MIT
#include "server/state_dir.hh"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "support/temp_dir.hh"

namespace rmem::server {
namespace {

store::FileFacts facts() {
  return {.path = "/srv/a file%", .device = 7, .inode = 17, .birth = "12.000000034", .size = 4096};
}

class StateDirTest : public testing::Test {
 protected:
  StateDir open() {
    auto made = StateDir::open(dir / "state");
    EXPECT_TRUE(made.ok()) << made.status().cause();
    return std::move(made).value();
  }
  std::string record() {
    for (const auto& entry : std::filesystem::directory_iterator(dir / "state/stores"))
      return entry.path();
    return "";
  }
  test::TempDir dir;
};

TEST_F(StateDirTest, IdentityIsMadeOnceAndKept) {
  const Uuid identity = open().load(facts())->identity;
  EXPECT_NE(identity, Uuid{});
  EXPECT_EQ(open().load(facts())->identity, identity);
}

TEST_F(StateDirTest, ASecretIsMadeOnceAndKept) {
  const auto secret = open().secret("key");
  ASSERT_TRUE(secret.ok()) << secret.status().cause();
  EXPECT_NE(*secret, (std::array<std::uint8_t, 32>{}));
  EXPECT_EQ(*open().secret("key"), *secret);
  EXPECT_NE(*open().secret("other"), *secret);
  const auto file = std::filesystem::status(dir / "state/key");
  EXPECT_EQ(file.permissions(), std::filesystem::perms(0600));
}

// As a crash may leave it that came before the name was there for good.
TEST_F(StateDirTest, HalfASecretIsMadeAnew) {
  const auto secret = open().secret("key");
  std::filesystem::resize_file(dir / "state/key", 31);
  const auto next = open().secret("key");
  ASSERT_TRUE(next.ok());
  EXPECT_NE(*next, *secret);
  EXPECT_EQ(*open().secret("key"), *next);
}

TEST_F(StateDirTest, ClaimSurvives) {
  StoreRecord record{.identity = uuid_random(),
                     .claim = {.generation = 9, .writer = uuid_random(), .fenced = {{1}, {2}}}};
  ASSERT_TRUE(open().save(facts(), record).ok());
  const auto back = open().load(facts());
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->identity, record.identity);
  EXPECT_EQ(back->claim, record.claim);
  record.claim.writer.reset();
  ASSERT_TRUE(open().save(facts(), record).ok());
  EXPECT_EQ(open().load(facts())->claim, record.claim);
}

TEST_F(StateDirTest, AnotherFileOfTheSameNameIsAnotherStore) {
  const StateDir state = open();
  const StoreRecord first = *state.load(facts());
  auto other = facts();
  other.inode = 18;
  const StoreRecord second = *state.load(other);
  EXPECT_NE(second.identity, first.identity);
  EXPECT_EQ(second.claim, ClaimRecord{});
  auto reborn = other;
  reborn.birth = "13.000000000";
  EXPECT_NE(state.load(reborn)->identity, second.identity);
  auto resized = reborn;
  resized.size = 8192;
  EXPECT_NE(state.load(resized)->identity, second.identity);
}

TEST_F(StateDirTest, IdentityOfTheStoresOwnCounts) {
  auto own = facts();
  own.identity = uuid_random();
  StoreRecord record = *open().load(own);
  EXPECT_EQ(record.identity, *own.identity);
  record.claim.generation = 5;
  ASSERT_TRUE(open().save(own, record).ok());
  EXPECT_EQ(open().load(own)->claim.generation, 5u);
  own.identity = uuid_random();
  EXPECT_EQ(open().load(own)->identity, *own.identity);
  EXPECT_EQ(open().load(own)->claim, ClaimRecord{});
}

TEST_F(StateDirTest, DeviceNumbersMayChange) {
  const StateDir state = open();
  const Uuid identity = state.load(facts())->identity;
  auto elsewhere = facts();
  elsewhere.device = 8;
  EXPECT_EQ(state.load(elsewhere)->identity, identity);
}

TEST_F(StateDirTest, SecondServerIsBusy) {
  const StateDir first = open();
  EXPECT_EQ(StateDir::open(dir / "state").status().code(), Code::kBusy);
}

TEST_F(StateDirTest, HalfWrittenSuccessorIsIgnored) {
  const Uuid identity = open().load(facts())->identity;
  std::ofstream(record() + ".new") << "{\"schema\":1,\"pa";
  std::ofstream(dir / "state/stores/zzz.json.new") << "{";
  EXPECT_EQ(open().load(facts())->identity, identity);
}

TEST_F(StateDirTest, DamagedRecordIsAnErrorNotANewIdentity) {
  ASSERT_TRUE(open().load(facts()).ok());
  const std::string path = record();
  for (const char* text : {"", "{", "[]", "{\"schema\":2}", "{\"schema\":1}",
                           "{\"schema\":1,\"path\":\"/srv/a file%25\"}"}) {
    std::ofstream(path) << text;
    const auto loaded = open().load(facts());
    ASSERT_FALSE(loaded.ok()) << text;
    EXPECT_EQ(loaded.status().code(), Code::kCorrupt);
    EXPECT_NE(loaded.status().cause().find(path), std::string::npos);
  }
}

TEST_F(StateDirTest, WhereNothingCanBeWrittenItSaysSo) {
  std::ofstream(dir / "state") << "a file";
  const Status status = StateDir::open(dir / "state").status();
  EXPECT_FALSE(status.ok());
  EXPECT_NE(status.hint().find("--state-dir"), std::string::npos);
}

}  // namespace
}  // namespace rmem::server
