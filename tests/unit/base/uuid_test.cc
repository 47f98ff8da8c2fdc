// SPDX-License-Identifier: MIT
#include "base/uuid.hh"

#include <gtest/gtest.h>

namespace rmem {
namespace {

TEST(Uuid, SurvivesItsText) {
  const Uuid uuid = uuid_random();
  EXPECT_EQ(*uuid_parse(uuid_to_string(uuid)), uuid);
  EXPECT_EQ(uuid_to_string(uuid)[14], '4');  // version
}

TEST(Uuid, IsNeverTheSame) { EXPECT_NE(uuid_random(), uuid_random()); }

TEST(Uuid, AcceptsEitherCase) {
  EXPECT_EQ(*uuid_parse("01234567-89AB-cdef-0123-456789abcdef"),
            *uuid_parse("01234567-89ab-CDEF-0123-456789ABCDEF"));
}

TEST(Uuid, RefusesWhatIsNone) {
  for (const char* text :
       {"", "01234567-89ab-cdef-0123-456789abcde", "01234567-89ab-cdef-0123-456789abcdefa",
        "01234567089ab-cdef-0123-456789abcdef", "g1234567-89ab-cdef-0123-456789abcdef"})
    EXPECT_FALSE(uuid_parse(text).ok()) << text;
}

}  // namespace
}  // namespace rmem
