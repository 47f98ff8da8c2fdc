// SPDX-License-Identifier: MIT
#include "base/errno.hh"

#include <gtest/gtest.h>

#include <cerrno>

namespace rmem {
namespace {

TEST(Errno, MapsToTheExitCodesOfTheContract) {
  EXPECT_EQ(code_from_errno(0), Code::kOk);
  EXPECT_EQ(code_from_errno(ENOENT), Code::kNotFound);
  EXPECT_EQ(code_from_errno(EACCES), Code::kPermission);
  EXPECT_EQ(code_from_errno(EROFS), Code::kPermission);
  EXPECT_EQ(code_from_errno(ETIMEDOUT), Code::kTimeout);
  EXPECT_EQ(code_from_errno(EADDRINUSE), Code::kBusy);
  EXPECT_EQ(code_from_errno(ECONNREFUSED), Code::kUnreachable);
  EXPECT_EQ(code_from_errno(EBADMSG), Code::kCorrupt);
  EXPECT_EQ(code_from_errno(EIO), Code::kFailed);
}

TEST(Status, NamesTheThingAndTheCause) {
  const Status status = Status::from_errno(ENOENT, "/no/such/file");
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_EQ(status.err(), ENOENT);
  EXPECT_EQ(status.cause(), "/no/such/file: No such file or directory");
  EXPECT_EQ(status.with_context("export `a'").cause(),
            "export `a': /no/such/file: No such file or directory");
  EXPECT_EQ(status.with_hint("create it").hint(), "create it");
  EXPECT_EQ(Status().with_context("nothing").cause(), "");
}

TEST(Status, EveryCodeHasItsName) {
  EXPECT_EQ(code_name(Code::kOk), "ok");
  EXPECT_EQ(code_name(Code::kUnreachable), "unreachable");
  EXPECT_EQ(code_name(Code::kPaused), "paused");
}

}  // namespace
}  // namespace rmem
