// SPDX-License-Identifier: MIT
#include "store/filter.hh"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <map>

#include "base/units.hh"
#include "base/uri.hh"
#include "store/filter_kinds.hh"

namespace rmem::store {
namespace {

using Options = std::map<std::string, std::string>;  // without "FILTER."

constexpr std::string_view kFilters[] = {"error", "delay", "stats", "cache"};

template <class Number>
bool to_number(std::string_view text, Number& number) {
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  return error == std::errc() && rest == end;
}

Status bad_value(const std::string& key, const std::string& value, const std::string& hint) {
  return Status(Code::kUsage, key + ": `" + value + "' will not do", hint);
}

// The place of an option that is named like an operation.
template <class Value>
Value* find(std::array<Value, 4>& values, std::string_view key) {
  for (std::size_t i = 0; i < values.size(); ++i)
    if (key == kOperations[i]) return &values[i];
  return nullptr;
}

bool parse_rate(std::string_view text, ErrorFilter::Rate& rate) {
  if (text.starts_with("1/")) return to_number(text.substr(2), rate.every) && rate.every > 0;
  return to_number(text, rate.probability) && rate.probability >= 0 && rate.probability <= 1;
}

bool parse_range(std::string_view text, DelayFilter::Range& range) {
  const auto dash = text.find('-');
  const auto from = parse_duration(text.substr(0, dash));
  const auto to = dash == text.npos ? from : parse_duration(text.substr(dash + 1));
  if (!from || !to || *from > *to) return false;
  range = {*from, *to};
  return true;
}

bool parse_errno(std::string_view name, int& err) {
  // Those with which a store that is there may answer.
  constexpr std::pair<std::string_view, int> kKnown[] = {
      {"EIO", EIO}, {"ENOSPC", ENOSPC}, {"EROFS", EROFS}, {"EBADMSG", EBADMSG}, {"ESTALE", ESTALE}};
  for (const auto& [known, number] : kKnown)
    if (name == known) err = number;
  return std::any_of(std::begin(kKnown), std::end(kKnown),
                     [name](const auto& one) { return one.first == name; });
}

bool parse_seed(std::string_view text, std::uint64_t& seed) { return to_number(text, seed); }

Result<Filter> parse_error(const Options& options) {
  ErrorFilter filter;
  for (const auto& [key, value] : options) {
    ErrorFilter::Rate* const rate = find(filter.rates, key);
    if (rate != nullptr  ? parse_rate(value, *rate)
        : key == "errno" ? parse_errno(value, filter.err)
        : key == "seed"  ? parse_seed(value, filter.seed)
                         : false)
      continue;
    return bad_value("error." + key, value,
                     "error.read, .write, .zero and .flush are 0 to 1, or 1/N for each N-th; "
                     "error.errno is EIO, ENOSPC, EROFS, EBADMSG or ESTALE; error.seed a number");
  }
  return Filter(filter);
}

Result<Filter> parse_delay(const Options& options) {
  DelayFilter filter;
  for (const auto& [key, value] : options) {
    DelayFilter::Range* const range = find(filter.ranges, key);
    if (range != nullptr ? parse_range(value, *range)
                         : key == "seed" && parse_seed(value, filter.seed))
      continue;
    return bad_value("delay." + key, value,
                     "delay.read, .write, .zero and .flush are times as 5ms or 1ms-20ms; "
                     "delay.seed is a number");
  }
  return Filter(filter);
}

Result<Filter> parse_cache(const Options& options) {
  CacheFilter filter;
  for (const auto& [key, value] : options) {
    const auto bytes = parse_size(value);
    if (!bytes) return bad_value("cache." + key, value, bytes.status().hint());
    (key == "size" ? filter.size : filter.block) = *bytes;
  }
  if (!std::has_single_bit(filter.block) || filter.block < 4096 || filter.block > 4 << 20)
    return bad_value("cache.block", format_size(filter.block), "a power of two, 4KiB to 4MiB");
  if (filter.size < filter.block)
    return bad_value("cache.size", format_size(filter.size), "at least cache.block");
  return Filter(filter);
}

Result<Filter> parse_filter(std::string_view name, const Options& options) {
  const auto known = [&](std::initializer_list<std::string_view> keys) {
    for (const auto& [key, value] : options)
      if (std::find(keys.begin(), keys.end(), key) == keys.end())
        return Status(Code::kUsage, "unknown option `" + std::string(name) + "." + key + "'");
    return Status();
  };
  if (name == "error") {
    if (Status s = known({"read", "write", "zero", "flush", "errno", "seed"}); !s.ok()) return s;
    return parse_error(options);
  }
  if (name == "delay") {
    if (Status s = known({"read", "write", "zero", "flush", "seed"}); !s.ok()) return s;
    return parse_delay(options);
  }
  if (name == "cache") {
    if (Status s = known({"size", "block"}); !s.ok()) return s;
    return parse_cache(options);
  }
  if (Status s = known({}); !s.ok()) return s;
  return Filter(StatsFilter{});
}

}  // namespace

Result<FilteredUri> FilteredUri::parse(std::string_view text) {
  FilteredUri result;
  result.base = text;
  const auto uri = Uri::parse(text);
  if (!uri) return result;
  std::string_view rest = text;
  std::string scheme = uri->scheme;
  std::vector<std::string> names;
  for (;;) {
    const auto plus = scheme.find('+');
    const std::string name = scheme.substr(0, plus);
    if (plus == scheme.npos ||
        std::find(std::begin(kFilters), std::end(kFilters), name) == std::end(kFilters))
      break;
    if (std::find(names.begin(), names.end(), name) != names.end())
      return Status(Code::kUsage, "`" + std::string(text) + "': filter `" + name + "' comes twice");
    names.push_back(name);
    scheme.erase(0, plus + 1);
    rest.remove_prefix(plus + 1);
  }
  if (names.empty()) return result;

  // Their options go to them, the others stay.
  const auto owner = [&](std::string_view key) {
    return std::find_if(names.begin(), names.end(),
                        [key](const std::string& name) { return key.starts_with(name + "."); });
  };
  std::map<std::string, Options> options;
  for (const auto& [key, value] : uri->query)
    if (const auto name = owner(key); name != names.end())
      options[*name][key.substr(name->size() + 1)] = value;
  const auto mark = std::min(rest.find('?'), rest.size());
  result.base = rest.substr(0, mark);
  char separator = '?';
  for (std::string_view query = rest.substr(std::min(mark + 1, rest.size())); !query.empty();) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(pair.size() + 1, query.size()));
    if (owner(pair) != names.end()) continue;
    (result.base += std::exchange(separator, '&')) += pair;
  }

  for (const std::string& name : names) {
    auto filter = parse_filter(name, options[name]);
    if (!filter) return filter.status().with_context("`" + std::string(text) + "'");
    result.filters.push_back(std::move(filter).value());
  }
  return result;
}

FilterStack::FilterStack(Reactor& reactor, const std::vector<Filter>& filters, Store& base,
                         const std::string& name) {
  Store* below = &base;
  for (auto filter = filters.rbegin(); filter != filters.rend(); ++filter) {
    if (const auto* error = std::get_if<ErrorFilter>(&*filter))
      stores_.push_back(make_filter(*error, *below));
    else if (const auto* delay = std::get_if<DelayFilter>(&*filter))
      stores_.push_back(make_filter(*delay, *below, reactor));
    else if (const auto* cache = std::get_if<CacheFilter>(&*filter))
      stores_.push_back(make_filter(*cache, *below));
    else
      stores_.push_back(make_filter(std::get<StatsFilter>(*filter), *below, name));
    below = stores_.back().get();
  }
}

std::uint64_t chance(std::uint64_t seed, Operation operation, std::uint64_t nth) {
  // splitmix64
  std::uint64_t z = seed * 4 + static_cast<std::uint64_t>(operation);
  z = (z ^ nth * 0x9e3779b97f4a7c15) + 0x9e3779b97f4a7c15;
  for (const std::uint64_t factor : {0xbf58476d1ce4e5b9, 0x94d049bb133111eb})
    z = (z ^ (z >> 30)) * factor;
  return z ^ (z >> 31);
}

}  // namespace rmem::store
