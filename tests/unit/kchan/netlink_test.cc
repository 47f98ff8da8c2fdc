// SPDX-License-Identifier: MIT
// Messages about regions, as they come out of the socket.
#include "kchan/netlink.hh"

#include <gtest/gtest.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

namespace rmem::kchan {
namespace {

class RegionMessageTest : public testing::Test {
 protected:
  void SetUp() override { bytes.resize(NLMSG_HDRLEN + GENL_HDRLEN); }

  void attribute(int type, const void* value, std::size_t length) {
    const nlattr header = {static_cast<__u16>(NLA_HDRLEN + length), static_cast<__u16>(type)};
    const std::size_t at = bytes.size();
    bytes.resize(at + NLA_HDRLEN + NLA_ALIGN(length));
    std::memcpy(&bytes[at], &header, sizeof header);
    std::memcpy(&bytes[at + NLA_HDRLEN], value, length);
  }
  template <class Number>
  void number(int type, Number value) {
    attribute(type, &value, sizeof value);
  }
  // In memory of just that size.
  std::optional<RegionMessage> decode() {
    nlmsghdr header = {};
    header.nlmsg_len = static_cast<__u32>(bytes.size());
    header.nlmsg_type = NLMSG_MIN_TYPE;
    const genlmsghdr family = {RMEM_CMD_REGION_EVENT, RMEM_FAMILY_VERSION, 0};
    std::memcpy(bytes.data(), &header, sizeof header);
    std::memcpy(&bytes[NLMSG_HDRLEN], &family, sizeof family);
    const auto copy = std::make_unique<std::byte[]>(bytes.size());
    std::memcpy(copy.get(), bytes.data(), bytes.size());
    return decode_region({copy.get(), bytes.size()});
  }

  std::vector<std::byte> bytes;
};

TEST_F(RegionMessageTest, TellsWhatItCarries) {
  number<std::uint32_t>(RMEM_A_REGION_ID, 7);
  attribute(RMEM_A_REGION_NAME, "data", 5);
  number<std::uint64_t>(RMEM_A_REGION_SIZE, 1 << 20);
  number<std::uint8_t>(RMEM_A_REGION_FOLIO_ORDER, 4);
  number<std::uint32_t>(RMEM_A_REGION_EVENT, RMEM_EVENT_STATE);
  const auto told = decode();
  ASSERT_TRUE(told);
  EXPECT_EQ(told->command, RMEM_CMD_REGION_EVENT);
  EXPECT_EQ(told->event, std::uint32_t{RMEM_EVENT_STATE});
  EXPECT_EQ(told->region.id, 7u);
  EXPECT_EQ(told->region.name, "data");
  EXPECT_EQ(told->region.size, 1u << 20);
  EXPECT_EQ(told->region.folio_order, 4);
}

TEST_F(RegionMessageTest, AttributeThatIsTooShortIsNone) {
  for (const int type : {RMEM_A_REGION_SIZE, RMEM_A_REGION_ID, RMEM_A_REGION_FOLIO_ORDER,
                         RMEM_A_REGION_MODULE_BYTES, RMEM_A_REGION_EVENT}) {
    bytes.resize(NLMSG_HDRLEN + GENL_HDRLEN);
    attribute(type, "", 0);
    EXPECT_FALSE(decode()) << type;
  }
}

TEST_F(RegionMessageTest, TextNeedsNoEnd) {
  attribute(RMEM_A_REGION_NAME, "abcd", 4);
  ASSERT_TRUE(decode());
  EXPECT_EQ(decode()->region.name, "abcd");
}

TEST_F(RegionMessageTest, WhatIsShorterThanItsHeadersIsNone) {
  for (std::size_t length = 0; length < NLMSG_HDRLEN + GENL_HDRLEN; ++length) {
    std::vector<std::byte> message(length);
    const auto said = static_cast<__u32>(length);
    if (length >= sizeof said) std::memcpy(message.data(), &said, sizeof said);
    EXPECT_FALSE(decode_region(message)) << length;
  }
}

}  // namespace
}  // namespace rmem::kchan
