// SPDX-License-Identifier: MIT
// Reading members of a JSON object that a stranger sent.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>

#include "base/status.hh"

namespace rmem::control {

// Takes members out of an object by name and type, and remembers the first
// mistake. Nothing throws. Members that nobody took are a mistake, too: what is
// not understood must not be silently left undone.
class Fields {
 public:
  explicit Fields(const nlohmann::json& object) : object_(object) {
    if (!object.is_object()) complain("not an object");
  }

  // Each leaves `out` as it is when the member is absent.
  void take(const char* name, std::string& out) {
    if (const auto* v = find(name); v && !v->is_string()) {
      complain(std::string("`") + name + "' is not a string");
    } else if (v) {
      out = v->get<std::string>();
    }
  }
  void take(const char* name, bool& out) {
    if (const auto* v = find(name); v && !v->is_boolean()) {
      complain(std::string("`") + name + "' is neither true nor false");
    } else if (v) {
      out = v->get<bool>();
    }
  }
  // `most` is the largest value allowed.
  void take(const char* name, std::uint64_t& out, std::uint64_t most) {
    const auto* v = find(name);
    if (!v) return;
    if (!v->is_number_unsigned() || v->get<std::uint64_t>() > most) {
      complain(std::string("`") + name + "' is not a number from 0 to " + std::to_string(most));
    } else {
      out = v->get<std::uint64_t>();
    }
  }
  // Any number; left empty when the member is absent.
  void take(const char* name, std::optional<std::uint64_t>& out) {
    if (!object_.is_object() || !object_.contains(name)) return;
    take(name, out.emplace(), ~std::uint64_t{0});
  }
  // A member for somebody else to look at.
  void skip(const char* name) { taken_.insert(name); }

  Status status() {
    if (first_.ok() && object_.is_object()) {
      for (const auto& [name, value] : object_.items()) {
        if (!taken_.count(name)) complain("`" + name + "' is not known here");
      }
    }
    return first_;
  }

 private:
  const nlohmann::json* find(const char* name) {
    taken_.insert(name);
    if (!object_.is_object()) return nullptr;
    const auto it = object_.find(name);
    return it == object_.end() ? nullptr : &*it;
  }
  void complain(std::string what) {
    if (first_.ok()) first_ = Status(Code::kUsage, std::move(what));
  }

  const nlohmann::json& object_;
  std::set<std::string, std::less<>> taken_;
  Status first_;
};

}  // namespace rmem::control
