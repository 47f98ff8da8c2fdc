// SPDX-License-Identifier: MIT
#include <cstring>
#include <vector>

#include "link.hh"
#include "peer.hh"

namespace rmem::bench {
namespace {

class TcpPeer final : public Peer {
 public:
  TcpPeer(Link link, std::uint64_t size)
      : Peer("tcp", size), link_(std::move(link)), bytes_(size) {}

  bool can(Case which) const override {
    return which == Case::kSequential || which == Case::kRandom;
  }

  Status prepare(Case) override {
    // What is left of the last time shall not pass for what did not come.
    std::memset(bytes_.data(), 0, bytes_.size());
    return Status();
  }

  Status run(Case which, std::span<const std::uint32_t> pages) override {
    if (which == Case::kSequential) return link_.read(0, bytes_);
    for (const std::uint32_t page : pages)
      if (Status got = link_.read(page * kPage, at(page)); !got.ok()) return got;
    return Status();
  }

  Status check(std::uint32_t page) override { return check_pattern(at(page), page); }

 private:
  std::span<std::byte> at(std::uint32_t page) {
    return std::span(bytes_).subspan(page * kPage, kPage);
  }

  Link link_;
  std::vector<std::byte> bytes_;
};

}  // namespace

Result<std::unique_ptr<Peer>> tcp_peer(const transport::Address& server, std::uint64_t size) {
  auto link = Link::connect(server);
  if (!link) return link.status();
  return std::unique_ptr<Peer>(std::make_unique<TcpPeer>(std::move(link).value(), size));
}

}  // namespace rmem::bench
