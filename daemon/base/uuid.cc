// SPDX-License-Identifier: MIT
#include "base/uuid.hh"

#include <sys/random.h>

#include <cstdlib>
#include <span>

namespace rmem {
namespace {

void fill_random(std::span<std::uint8_t> into) {
  // Up to 256 bytes are never short once the kernel's pool is seeded.
  if (::getrandom(into.data(), into.size(), 0) != static_cast<ssize_t>(into.size())) std::abort();
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// A dash stands before the bytes with these indices.
bool dash_before(std::size_t byte) { return byte == 4 || byte == 6 || byte == 8 || byte == 10; }

}  // namespace

Uuid uuid_random() {
  Uuid uuid;
  fill_random(uuid);
  uuid[6] = (uuid[6] & 0x0f) | 0x40;
  uuid[8] = (uuid[8] & 0x3f) | 0x80;
  return uuid;
}

std::uint64_t random_u64() {
  std::uint64_t value = 0;
  while (value == 0) fill_random(std::span(reinterpret_cast<std::uint8_t*>(&value), sizeof value));
  return value;
}

std::string uuid_to_string(const Uuid& uuid) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(36);
  for (std::size_t i = 0; i < uuid.size(); ++i) {
    if (dash_before(i)) text += '-';
    text += kDigits[uuid[i] >> 4];
    text += kDigits[uuid[i] & 15];
  }
  return text;
}

Result<Uuid> uuid_parse(std::string_view text) {
  Uuid uuid;
  std::size_t at = 0;
  bool good = text.size() == 36;
  for (std::size_t i = 0; good && i < uuid.size(); ++i) {
    if (dash_before(i)) good = text[at++] == '-';
    const int high = hex_digit(text[at]);
    const int low = hex_digit(text[at + 1]);
    at += 2;
    good = good && high >= 0 && low >= 0;
    uuid[i] = static_cast<std::uint8_t>(high << 4 | low);
  }
  if (!good) return Status(Code::kUsage, "`" + std::string(text) + "' is not a UUID");
  return uuid;
}

}  // namespace rmem
