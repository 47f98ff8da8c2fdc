// SPDX-License-Identifier: MIT
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "link.hh"
#include "measure.hh"
#include "report.hh"

namespace rmem::bench {
namespace {

using ::testing::HasSubstr;

TEST(Pattern, EachWordOfEachPageIsItsOwn) {
  std::vector<std::byte> bytes(2 * kPage);
  fill_pattern(bytes, 7);
  const auto first = std::span(bytes).first(kPage);
  const auto second = std::span(bytes).subspan(kPage);
  EXPECT_TRUE(check_pattern(first, 7).ok());
  EXPECT_TRUE(check_pattern(second, 8).ok());
  EXPECT_EQ(check_pattern(second, 7).code(), Code::kCorrupt);
  bytes[kPage - 1] ^= std::byte{1};
  EXPECT_THAT(check_pattern(first, 7).cause(), HasSubstr("page 7 is wrong from byte 4088"));
}

TEST(Measure, RandomPagesLieApartAndDifferEachRound) {
  const Plan plan{.size = 4 << 20};
  const auto pages = pages_of(Case::kRandom, plan, 1);
  std::set<std::uint64_t> chunks;
  for (const std::uint32_t page : pages) chunks.insert(page * kPage / kApart);
  EXPECT_EQ(chunks.size(), 16u);
  EXPECT_EQ(pages.size(), 16u);
  EXPECT_NE(pages, pages_of(Case::kRandom, plan, 2));
  EXPECT_EQ(pages, pages_of(Case::kRandom, plan, 1));
}

// Takes time only in access(), and forgets one page if told to.
class SlowPeer final : public Peer {
 public:
  explicit SlowPeer(bool wrong) : Peer("slow", 4 * kPage), wrong_(wrong) {}
  bool can(Case which) const override { return which == Case::kSequential; }
  Status prepare(Case) override { return wait(); }
  Status access(Case, std::span<const std::uint32_t>, unsigned) override { return wait(); }
  Status check(std::uint32_t page, std::uint64_t) override {
    if (wrong_ && page == 3) return Status(Code::kCorrupt, "page 3");
    return wait();
  }

 private:
  static Status wait() {
    std::this_thread::sleep_for(std::chrono::milliseconds(4));
    return Status();
  }
  bool wrong_;
};

Result<Report> measure_slow(bool wrong) {
  std::vector<std::unique_ptr<Peer>> peers;
  peers.push_back(std::make_unique<SlowPeer>(wrong));
  return measure({.size = 4 * kPage, .rounds = 3, .cases = {Case::kSequential, Case::kWrite}},
                 peers);
}

TEST(Measure, PreparationAndCheckAreOffTheClock) {
  const auto report = measure_slow(false);
  ASSERT_TRUE(report.ok());
  ASSERT_EQ(report->figures.size(), 1u);
  EXPECT_EQ(report->figures[0].rounds.size(), 3u);
  EXPECT_GE(report->figures[0].least(), 1e6);  // 4 ms for 4 pages
  EXPECT_LT(report->figures[0].least(), 4e6);  // with the check it would be more
  EXPECT_EQ(report->checked_pages, 16u);       // the round that does not count is checked, too
  EXPECT_GE(report->checking, std::chrono::milliseconds(64));
}

TEST(Measure, AWrongByteEndsIt) {
  const auto report = measure_slow(true);
  EXPECT_EQ(report.status().code(), Code::kCorrupt);
  EXPECT_EQ(report.status().cause(), "slow, sequential: page 3");
}

TEST(Measure, LocalPeersHoldWhatTheyShall) {
  std::vector<std::unique_ptr<Peer>> peers;
  const Plan plan{.size = 1 << 20, .rounds = 1, .cases = {std::begin(kCases), std::end(kCases)}};
  auto anonymous = anonymous_peer(plan.size);
  auto tmpfs = tmpfs_peer(plan.size);
  ASSERT_TRUE(anonymous.ok() && tmpfs.ok());
  peers.push_back(std::move(anonymous).value());
  peers.push_back(std::move(tmpfs).value());
  const auto report = measure(plan, peers);
  ASSERT_TRUE(report.ok()) << report.status().cause();
  // new memory: cold only; a file in memory: not clean, and nowhere else
  EXPECT_EQ(report->figures.size(), 4u + 6u);
}

TEST(Report, MedianRatioAndFormats) {
  Report report;
  report.plan.cases = {Case::kSequential};
  report.figures = {{"tcp", Case::kSequential, 8, {30, 10, 20}},
                    {"rmem:r", Case::kSequential, 8, {40, 60}, {3, 1, 2}}};
  EXPECT_EQ(tsv(report),
            "peer\tcase\tpages\tmedian_ns\tleast_ns\tmost_ns\tp50_ns\tp99_ns\n"
            "tcp\tsequential\t8\t20\t10\t30\t-\t-\n"
            "rmem:r\tsequential\t8\t50\t40\t60\t2\t3\n");
  EXPECT_THAT(table(report), HasSubstr("rmem:r                   50  2.50\n"));
  const auto document = nlohmann::json::parse(json(report));
  EXPECT_EQ(document["schema"], 1);
  EXPECT_EQ(document["figures"][1]["median_ns"], 50.0);
}

TEST(Link, ReadsWhatIsThereAndNothingElse) {
  transport::Address address{.host = "127.0.0.1", .port = 0};
  auto listener = listen_at(address);
  ASSERT_TRUE(listener.ok()) << listener.status().cause();
  // It serves until the process ends.
  std::thread([fd = std::move(listener).value()] { (void)serve(fd, 4 * kPage, [] {}); }).detach();
  auto link = Link::connect(address);
  ASSERT_TRUE(link.ok()) << link.status().cause();
  std::vector<std::byte> page(kPage);
  ASSERT_TRUE(link->read(2 * kPage, page).ok());
  EXPECT_TRUE(check_pattern(page, 2).ok());
  EXPECT_EQ(link->read(4 * kPage - 1, page).code(), Code::kUnreachable);
}

}  // namespace
}  // namespace rmem::bench
