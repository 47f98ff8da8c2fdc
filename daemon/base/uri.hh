// SPDX-License-Identifier: MIT
// scheme://host:port/path?key=value, as in RFC 3986.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hh"

namespace rmem {

// The parts of a URI, percent-decoded. What they mean, and which keys are
// known, is the business of whoever asked.
struct Uri {
  std::string scheme;  // lower case
  std::string host;    // without the brackets of an IPv6 address; may be empty
  std::optional<std::uint16_t> port;
  std::string path;  // with its leading '/'; may be empty
  std::map<std::string, std::string> query;

  // kUsage when the text is not of that form, a key comes twice, a port is out
  // of 1..65535, or a %xx is broken. NUL bytes are refused.
  static Result<Uri> parse(std::string_view text);

  // kUsage unless every query key is one of `known`.
  Status expect_keys(std::initializer_list<std::string_view> known) const;
};

}  // namespace rmem
