// SPDX-License-Identifier: MIT
#include <cstring>
#include <vector>

#include "link.hh"
#include "peer.hh"

namespace rmem::bench {
namespace {

class TcpPeer final : public Peer {
 public:
  TcpPeer(std::vector<Link> links, std::uint64_t size)
      : Peer("tcp", size), links_(std::move(links)), bytes_(size) {}

  bool can(Case which) const override {
    return which == Case::kSequential || is_random(which) || which == Case::kOverwrite;
  }

  Status prepare(Case) override {
    // What is left of the last time shall not pass for what did not come.
    std::memset(bytes_.data(), 0, bytes_.size());
    return Status();
  }

  Status access(Case which, std::span<const std::uint32_t> pages, unsigned thread) override {
    Link& link = links_[thread];
    if (which == Case::kSequential)
      return link.read(0, std::span(bytes_).first(pages.size() * kPage));
    for (const std::uint32_t page : pages)
      if (Status got = link.read(page * kPage, at(page)); !got.ok()) return got;
    return Status();
  }

  Status overwrite(Case, std::span<const std::byte> bytes) override {
    if (Status given = links_[0].give(0, bytes); !given.ok()) return given;
    return links_[0].acknowledged();
  }

  Status check(std::uint32_t page, std::uint64_t expected) override {
    return check_pattern(at(page), expected);
  }

 private:
  std::span<std::byte> at(std::uint32_t page) {
    return std::span(bytes_).subspan(page * kPage, kPage);
  }

  std::vector<Link> links_;
  std::vector<std::byte> bytes_;
};

}  // namespace

Result<std::unique_ptr<Peer>> tcp_peer(const transport::Address& server, std::uint64_t size) {
  auto links = Link::connect(server, kMostThreads);
  if (!links) return links.status();
  return std::unique_ptr<Peer>(std::make_unique<TcpPeer>(std::move(links).value(), size));
}

}  // namespace rmem::bench
