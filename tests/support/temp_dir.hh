// SPDX-License-Identifier: MIT
// A directory for one test.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace rmem::test {

class TempDir {
 public:
  // In memory, where it shall cost nothing to flush.
  enum class Where { kDisk, kMemory };
  explicit TempDir(Where where = Where::kDisk) {
    const auto parent = where == Where::kMemory ? std::filesystem::path("/dev/shm")
                                                : std::filesystem::temp_directory_path();
    std::string name = (parent / "rmem-test-XXXXXX").string();
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace rmem::test
