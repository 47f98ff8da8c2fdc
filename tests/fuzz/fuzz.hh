// SPDX-License-Identifier: MIT
// What a fuzz target looks like. `make fuzz` builds each as a program of libFuzzer's;
// everywhere else fuzz_corpus_test feeds all of them what is in corpus/NAME.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

namespace rmem::fuzz {

using Target = void (*)(std::span<const std::byte> input);

// Remembers a target for fuzz_corpus_test.
struct Registered {
  Registered(const char* name, Target target);
};

// What the target promises; said without gtest, and ending the program, as libFuzzer
// wants it.
#define FUZZ_CHECK(condition)                                                             \
  do {                                                                                    \
    if (!(condition)) {                                                                   \
      std::fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                       \
    }                                                                                     \
  } while (false)

#ifdef RMEM_FUZZ
#define FUZZ_TARGET(name)                                                             \
  static void fuzz_##name(std::span<const std::byte> input);                          \
  extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) { \
    fuzz_##name(std::as_bytes(std::span(data, size)));                                \
    return 0;                                                                         \
  }                                                                                   \
  static void fuzz_##name(std::span<const std::byte> input)
#else
#define FUZZ_TARGET(name)                                                    \
  static void fuzz_##name(std::span<const std::byte> input);                 \
  static const rmem::fuzz::Registered registered_##name(#name, fuzz_##name); \
  static void fuzz_##name(std::span<const std::byte> input)
#endif

inline std::string_view text(std::span<const std::byte> input) {
  return {reinterpret_cast<const char*>(input.data()), input.size()};
}

// Takes the input apart; zeros once it is used up.
class Input {
 public:
  explicit Input(std::span<const std::byte> bytes) : left_(bytes) {}

  bool empty() const { return left_.empty(); }
  template <class Number>
  requires std::is_unsigned_v<Number> Number number() {
    Number value = 0;
    const auto taken = bytes(sizeof value);
    if (!taken.empty()) std::memcpy(&value, taken.data(), taken.size());
    return value;
  }
  // At most so many.
  std::span<const std::byte> bytes(std::size_t most) {
    const auto taken = left_.first(most < left_.size() ? most : left_.size());
    left_ = left_.subspan(taken.size());
    return taken;
  }
  std::span<const std::byte> rest() { return bytes(left_.size()); }

 private:
  std::span<const std::byte> left_;
};

}  // namespace rmem::fuzz
