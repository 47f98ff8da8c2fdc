// SPDX-License-Identifier: MIT
// Configuration files: TOML, taken key by key into variables. A program says once, in a
// Table, which keys there are and where their values go; what it has not named is a
// mistake. Mistakes are told with their place: "FILE:LINE:COLUMN: `limits.requests' ...".
#pragma once

#include <chrono>
#include <concepts>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.hh"

namespace rmem::config {

inline constexpr std::size_t kMostBytes = 1 << 20;  // of a file

// What stands in a file, as it was parsed, and where.
struct Value {
  enum class Type { kText, kBoolean, kInteger, kList, kTable, kOther };

  Type type = Type::kOther;
  std::string text;
  std::int64_t integer = 0;
  bool boolean = false;
  std::vector<Value> items;  // of a list; of a table in the order of the file

  std::string key;        // within its table; empty in a list
  std::string name;       // from the root: "export.name"
  std::string where;      // "FILE:LINE:COLUMN"
  std::string key_where;  // likewise, of the key

  // kUsage: this value is wrong, which `why` goes on to say.
  Status wrong(std::string_view why, std::string hint = {}) const;
  // The same with what a parser says.
  Status wrong(const Status& why) const { return wrong(why.cause(), why.hint()); }
};

// Puts a value where it belongs, or says what is wrong with it.
using Take = std::function<Status(const Value&)>;

// Which keys a table may have. What it puts values into must outlive it.
class Table {
 public:
  Table& key(std::string name, Take take);
  // The same, and it has to be there.
  Table& required(std::string name, Take take);
  // What has not been named is somebody else's, and no mistake.
  Table& ignore_others();
  // Takes all of a table, in the order of the file, up to the first mistake.
  Status take(const Value& table) const;

 private:
  struct Key {
    std::string name;
    Take take;
    bool required;
  };
  std::vector<Key> keys_;
  bool others_ = false;
};

// `document`: the text of a file that is called `file`.
Status parse(std::string_view document, const std::string& file, const Table& root);
Status read(const std::string& file, const Table& root);

// --- kinds of values -----------------------------------------------------------------

Take text(std::string& out);
Take boolean(bool& out);
// "64KiB", or a number of bytes.
Take size(std::uint64_t& out, std::uint64_t least = 0,
          std::uint64_t most = std::numeric_limits<std::int64_t>::max());
// "500ms", "30s".
Take duration(std::chrono::milliseconds& out, std::chrono::milliseconds least,
              std::chrono::milliseconds most);
// Text that somebody else understands; his Status is told with its place.
Take parsed(std::function<Status(const std::string&)> parser);
Take list(Take each);
Take table(Table keys);
// The elements of [[name]], or of a list of inline tables.
Take tables(Take each);

Result<std::uint64_t> whole_number(const Value& value, std::uint64_t least, std::uint64_t most);

template <std::unsigned_integral Number>
Take number(Number& out, Number least, Number most) {
  return [&out, least, most](const Value& value) {
    const auto taken = whole_number(value, least, most);
    if (taken) out = static_cast<Number>(*taken);
    return taken.status();
  };
}

// One of some words, each of which stands for something.
template <class T>
Take word(T& out, std::vector<std::pair<std::string, T>> words) {
  return [&out, words = std::move(words)](const Value& value) {
    std::string all;
    for (const auto& [name, meaning] : words) {
      if (value.type == Value::Type::kText && value.text == name) {
        out = meaning;
        return Status();
      }
      all += (all.empty() ? "`" : " or `") + name + "'";
    }
    return value.wrong("has to be " + all);
  };
}

}  // namespace rmem::config
