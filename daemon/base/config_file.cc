// SPDX-License-Identifier: MIT
#include "base/config_file.hh"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include "base/unique_fd.hh"
#include "base/units.hh"

#define TOML_HEADER_ONLY 1
#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

namespace rmem::config {
namespace {

using Type = Value::Type;

// What people have written, for a line of a log.
std::string printable(std::string_view text) {
  constexpr std::size_t kMost = 100;
  std::string clean(text.substr(0, kMost));
  for (char& c : clean)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  return text.size() > kMost ? clean + "..." : clean;
}

std::string at(const std::string& file, const ::toml::source_position& place) {
  return file + ':' + std::to_string(place.line) + ':' + std::to_string(place.column);
}

std::string_view article(Type type) {
  switch (type) {
    case Type::kText:
      return "text in quotes";
    case Type::kBoolean:
      return "true or false";
    case Type::kInteger:
      return "a whole number";
    case Type::kList:
      return "a list";
    case Type::kTable:
      return "a table";
    default:
      return "something else";
  }
}

Status expect(const Value& value, Type type) {
  if (value.type == type) return Status();
  return value.wrong("has to be " + std::string(article(type)));
}

Value convert(const ::toml::node& node, const std::string& file, const std::string& name) {
  Value value;
  value.name = name;
  value.where = value.key_where = at(file, node.source().begin);
  if (const auto* const string = node.as_string()) {
    value.type = Type::kText;
    value.text = string->get();
  } else if (const auto* const boolean = node.as_boolean()) {
    value.type = Type::kBoolean;
    value.boolean = boolean->get();
  } else if (const auto* const integer = node.as_integer()) {
    value.type = Type::kInteger;
    value.integer = integer->get();
  } else if (const auto* const array = node.as_array()) {
    value.type = Type::kList;
    for (const ::toml::node& one : *array) value.items.push_back(convert(one, file, name));
  } else if (const auto* const table = node.as_table()) {
    value.type = Type::kTable;
    using Entry = std::pair<const ::toml::key*, const ::toml::node*>;
    std::vector<Entry> entries;
    for (const auto& [key, one] : *table) entries.emplace_back(&key, &one);
    const auto place = [](const Entry& entry) {
      const ::toml::source_position& begin = entry.first->source().begin;
      return std::pair(begin.line, begin.column);
    };
    std::sort(entries.begin(), entries.end(),
              [&](const Entry& a, const Entry& b) { return place(a) < place(b); });
    for (const auto& [key, one] : entries) {
      const std::string shown = printable(key->str());
      Value item = convert(*one, file, name.empty() ? shown : name + '.' + shown);
      item.key = key->str();
      item.key_where = at(file, key->source().begin);
      value.items.push_back(std::move(item));
    }
  }
  return value;
}

}  // namespace

Status Value::wrong(std::string_view why, std::string hint) const {
  return Status(Code::kUsage, where + ": `" + name + "' " + printable(why), std::move(hint));
}

Table& Table::key(std::string name, Take take) {
  keys_.push_back({std::move(name), std::move(take), false});
  return *this;
}

Table& Table::required(std::string name, Take take) {
  keys_.push_back({std::move(name), std::move(take), true});
  return *this;
}

Status Table::take(const Value& table) const {
  if (Status is = expect(table, Type::kTable); !is.ok()) return is;
  std::set<std::string_view> there;
  for (const Value& item : table.items) {
    const auto known = std::find_if(keys_.begin(), keys_.end(),
                                    [&](const Key& one) { return one.name == item.key; });
    if (known == keys_.end()) {
      std::string names;
      for (const Key& one : keys_) names += (names.empty() ? "" : ", ") + one.name;
      return Status(Code::kUsage, item.key_where + ": `" + item.name + "' is no key of this file",
                    "keys here are " + names);
    }
    if (Status taken = known->take(item); !taken.ok()) return taken;
    there.insert(item.key);
  }
  for (const Key& one : keys_)
    if (one.required && !there.contains(one.name))
      return Status(Code::kUsage, table.where + ": `" +
                                      (table.name.empty() ? "" : table.name + '.') + one.name +
                                      "' is missing");
  return Status();
}

Status parse(std::string_view document, const std::string& file, const Table& root) {
  const ::toml::parse_result parsed = ::toml::parse(document);
  if (!parsed) {
    const ::toml::parse_error& error = parsed.error();
    return Status(Code::kUsage,
                  at(file, error.source().begin) + ": " + printable(error.description()));
  }
  return root.take(convert(parsed.table(), file, ""));
}

Status read(const std::string& file, const Table& root) {
  const auto failed = [&] {
    return Status(Code::kUsage, file + ": " + std::strerror(errno), {}, errno);
  };
  const UniqueFd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return failed();
  std::string document(kMostBytes + 1, '\0');
  std::size_t have = 0;
  while (have < document.size()) {
    const ssize_t got = ::read(fd.get(), document.data() + have, document.size() - have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return failed();
    if (got == 0) break;
    have += static_cast<std::size_t>(got);
  }
  if (have > kMostBytes)
    return Status(Code::kUsage, file + ": larger than " + format_size(kMostBytes));
  document.resize(have);
  return parse(document, file, root);
}

// --- kinds of values -----------------------------------------------------------------

Take text(std::string& out) {
  return [&out](const Value& value) {
    if (Status is = expect(value, Type::kText); !is.ok()) return is;
    // Names and paths, which end there for the system.
    if (value.text.find('\0') != std::string::npos) return value.wrong("has a NUL in it");
    out = value.text;
    return Status();
  };
}

Take boolean(bool& out) {
  return [&out](const Value& value) {
    if (Status is = expect(value, Type::kBoolean); !is.ok()) return is;
    out = value.boolean;
    return Status();
  };
}

Take parsed(std::function<Status(const std::string&)> parser) {
  return [parser = std::move(parser)](const Value& value) {
    std::string text;
    if (Status is = config::text(text)(value); !is.ok()) return is;
    const Status understood = parser(text);
    return understood.ok() ? Status() : value.wrong(understood);
  };
}

Take size(std::uint64_t& out, std::uint64_t least, std::uint64_t most) {
  return [&out, least, most](const Value& value) {
    std::uint64_t bytes = 0;
    if (value.type == Type::kText) {
      const auto parsed = parse_size(value.text);
      if (!parsed) return value.wrong(parsed.status());
      bytes = *parsed;
    } else if (value.type == Type::kInteger && value.integer >= 0) {
      bytes = static_cast<std::uint64_t>(value.integer);
    } else {
      return value.wrong("has to be a size, as in \"64KiB\"");
    }
    if (bytes < least) return value.wrong("has to be at least " + format_size(least));
    if (bytes > most) return value.wrong("has to be at most " + format_size(most));
    out = bytes;
    return Status();
  };
}

Take duration(std::chrono::milliseconds& out, std::chrono::milliseconds least,
              std::chrono::milliseconds most) {
  return [&out, least, most](const Value& value) {
    if (value.type != Type::kText) return value.wrong("has to be a time, as in \"30s\"");
    const auto time = parse_duration(value.text);
    if (!time) return value.wrong(time.status());
    if (*time < least || *time > most)
      return value.wrong("has to be from " + std::to_string(least.count()) + "ms to " +
                         std::to_string(most.count() / 1000) + "s");
    out = *time;
    return Status();
  };
}

Take list(Take each) {
  return [each = std::move(each)](const Value& value) {
    if (Status is = expect(value, Type::kList); !is.ok()) return is;
    for (const Value& item : value.items)
      if (Status taken = each(item); !taken.ok()) return taken;
    return Status();
  };
}

Take table(Table keys) {
  return [keys = std::move(keys)](const Value& value) { return keys.take(value); };
}

Take tables(Take each) {
  return list([each = std::move(each)](const Value& value) {
    const Status is = expect(value, Type::kTable);
    return is.ok() ? each(value) : is;
  });
}

Result<std::uint64_t> whole_number(const Value& value, std::uint64_t least, std::uint64_t most) {
  if (Status is = expect(value, Type::kInteger); !is.ok()) return is;
  if (value.integer < 0 || static_cast<std::uint64_t>(value.integer) < least ||
      static_cast<std::uint64_t>(value.integer) > most)
    return value.wrong("has to be from " + std::to_string(least) + " to " + std::to_string(most));
  return static_cast<std::uint64_t>(value.integer);
}

}  // namespace rmem::config
