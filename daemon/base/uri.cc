// SPDX-License-Identifier: MIT
#include "base/uri.hh"

#include <algorithm>
#include <cctype>
#include <charconv>

namespace rmem {
namespace {

Status bad(std::string_view uri, std::string_view why) {
  return Status(Code::kUsage, "`" + std::string(uri) + "': " + std::string(why));
}

bool decode(std::string_view text, std::string& out) {
  out.clear();
  for (std::size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      unsigned value = 0;
      if (i + 2 >= text.size()) return false;
      const char* end = text.data() + i + 3;
      const auto [rest, error] = std::from_chars(text.data() + i + 1, end, value, 16);
      if (error != std::errc() || rest != end) return false;
      c = static_cast<char>(value);
      i += 2;
    }
    if (c == '\0') return false;
    out += c;
  }
  return true;
}

bool valid_scheme(std::string_view scheme) {
  if (scheme.empty() || !std::isalpha(static_cast<unsigned char>(scheme[0]))) return false;
  return std::all_of(scheme.begin(), scheme.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '+' || c == '-' || c == '.';
  });
}

// host, host:port, [v6], [v6]:port
bool split_authority(std::string_view authority, std::string_view& host, std::string_view& port) {
  if (authority.starts_with('[')) {
    const auto close = authority.find(']');
    if (close == std::string_view::npos) return false;
    host = authority.substr(1, close - 1);
    const std::string_view rest = authority.substr(close + 1);
    if (!rest.empty() && rest[0] != ':') return false;
    port = rest.empty() ? rest : rest.substr(1);
    return rest.size() != 1 && !host.empty();
  }
  const auto colon = authority.find(':');
  host = authority.substr(0, colon);
  if (colon == std::string_view::npos) return true;
  port = authority.substr(colon + 1);
  return !port.empty() && port.find(':') == std::string_view::npos;
}

}  // namespace

Result<Uri> Uri::parse(std::string_view text) {
  Uri uri;
  const auto mark = text.find("://");
  if (mark == std::string_view::npos || !valid_scheme(text.substr(0, mark)))
    return bad(text, "not of the form scheme://...");
  for (const char c : text.substr(0, mark))
    uri.scheme += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));

  std::string_view rest = text.substr(mark + 3);
  if (rest.find('#') != std::string_view::npos) return bad(text, "`#' must be written %23");
  std::string_view query;
  if (const auto at = rest.find('?'); at != std::string_view::npos) {
    query = rest.substr(at + 1);
    rest = rest.substr(0, at);
  }
  const auto slash = std::min(rest.find('/'), rest.size());

  std::string_view host, port;
  if (!split_authority(rest.substr(0, slash), host, port))
    return bad(text, "the address is not host, host:port or [IPv6]:port");
  if (!port.empty()) {
    std::uint16_t number = 0;
    const char* end = port.data() + port.size();
    const auto [stop, error] = std::from_chars(port.data(), end, number);
    if (error != std::errc() || stop != end || number == 0)
      return bad(text, "the port is not a number from 1 to 65535");
    uri.port = number;
  }
  if (!decode(host, uri.host) || !decode(rest.substr(slash), uri.path))
    return bad(text, "broken %xx; a literal `%' is written %25");

  while (!query.empty()) {
    const auto amp = std::min(query.find('&'), query.size());
    const std::string_view pair = query.substr(0, amp);
    query.remove_prefix(std::min(amp + 1, query.size()));
    const auto equals = pair.find('=');
    std::string key, value;
    if (equals == std::string_view::npos || equals == 0)
      return bad(text, "what follows `?' is not key=value");
    if (!decode(pair.substr(0, equals), key) || !decode(pair.substr(equals + 1), value))
      return bad(text, "broken %xx; a literal `%' is written %25");
    if (!uri.query.emplace(key, value).second) return bad(text, "`" + key + "' is given twice");
  }
  return uri;
}

Status Uri::expect_keys(std::initializer_list<std::string_view> known) const {
  for (const auto& [key, value] : query)
    if (std::find(known.begin(), known.end(), key) == known.end())
      return Status(Code::kUsage, scheme + "://: unknown option `" + key + "'");
  return Status();
}

}  // namespace rmem
