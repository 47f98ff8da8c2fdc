// SPDX-License-Identifier: MIT
// Refusals of handshakes are told of one by one, until there are too many.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "base/log.hh"
#include "base/reactor.hh"

namespace rmem::transport {

class RefusalLog {
 public:
  explicit RefusalLog(const char* source) : log_(source) {}

  void refused(const std::string& cause) {
    constexpr auto kPeriod = std::chrono::seconds(10);
    constexpr unsigned kLines = 20;  // in one of them, at most
    const auto now = Reactor::Clock::now();
    if (now - since_ >= kPeriod) {
      since_ = now;
      if (count_ > kLines) log_.warning("and {} refusals more", count_ - kLines);
      count_ = 0;
    }
    if (++count_ <= kLines) log_.warning("{}", cause);
  }

 private:
  log::Source log_;
  Reactor::Clock::time_point since_{};
  std::uint64_t count_ = 0;  // since then
};

}  // namespace rmem::transport
