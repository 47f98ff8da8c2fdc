// SPDX-License-Identifier: MIT
// Messages of the netlink family, as rmemd and rmemctl read them.
#include <linux/genetlink.h>
#include <linux/netlink.h>

#include <algorithm>
#include <memory>

#include "fuzz/fuzz.hh"
#include "kchan/netlink.hh"

namespace {

using namespace rmem;

void check(std::span<const std::byte> bytes) {
  // On the heap and to the byte, so that ASan sees what is read beyond its end.
  const auto copy = std::make_unique<std::byte[]>(bytes.size());
  std::copy(bytes.begin(), bytes.end(), copy.get());
  const auto told = kchan::decode_region({copy.get(), bytes.size()});
  if (!told) return;
  const kchan::RegionInfo& region = told->region;
  for (const std::string* text : {&region.name, &region.source, &region.instance, &region.reason}) {
    FUZZ_CHECK(text->size() < bytes.size());
    FUZZ_CHECK(text->find('\0') == text->npos);
  }
  FUZZ_CHECK(region.blob.size() < bytes.size());
}

}  // namespace

FUZZ_TARGET(netlink) {
  check(input);
  // The same as the attributes of a message whose headers are right.
  constexpr std::size_t kHeaders = NLMSG_HDRLEN + GENL_HDRLEN;
  std::vector<std::byte> whole(kHeaders + input.size());
  nlmsghdr header = {};
  header.nlmsg_len = static_cast<std::uint32_t>(whole.size());
  header.nlmsg_type = NLMSG_MIN_TYPE;
  const genlmsghdr family = {RMEM_CMD_REGION_EVENT, RMEM_FAMILY_VERSION, 0};
  std::memcpy(whole.data(), &header, sizeof header);
  std::memcpy(&whole[NLMSG_HDRLEN], &family, sizeof family);
  std::copy(input.begin(), input.end(), whole.begin() + kHeaders);
  check(whole);
}
