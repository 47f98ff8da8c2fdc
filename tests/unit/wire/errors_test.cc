// SPDX-License-Identifier: MIT
#include "wire/errors.hh"

#include <gtest/gtest.h>

#include <cerrno>

#include "wire/messages.hh"

namespace rmem::wire {
namespace {

TEST(WireErrors, ThereAndBack) {
  for (const int err : {0, EPERM, ENOENT, EIO, EACCES, EBUSY, EINVAL, EMFILE, ENOSPC, EROFS, EPROTO,
                        EBADMSG, EMSGSIZE, EPROTONOSUPPORT, EOPNOTSUPP, ETIMEDOUT, ESTALE})
    EXPECT_EQ(errno_from_wire(wire_from_errno(err)), err);
}

TEST(WireErrors, NumbersAreTheDocumentsOnes) {
  EXPECT_EQ(wire_from_errno(ENOSPC), 28u);
  EXPECT_EQ(wire_from_errno(ESTALE), 116u);
  EXPECT_EQ(wire_from_errno(EBADMSG), 74u);
}

TEST(WireErrors, TheUnknownIsEio) {
  EXPECT_EQ(wire_from_errno(ENOTTY), error::kIo);
  EXPECT_EQ(errno_from_wire(4711), EIO);
}

TEST(WireErrors, QuotaAndFileLimitAreLackOfSpace) {
  EXPECT_EQ(wire_from_errno(EDQUOT), error::kNoSpace);
  EXPECT_EQ(wire_from_errno(EFBIG), error::kNoSpace);
}

}  // namespace
}  // namespace rmem::wire
