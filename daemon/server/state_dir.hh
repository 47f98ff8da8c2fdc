// SPDX-License-Identifier: MIT
// What the server has to remember across its own death: which store is which,
// and who may write to it. The format is in docs/protocol.md, section 6.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/result.hh"
#include "base/unique_fd.hh"
#include "base/uuid.hh"
#include "server/claims.hh"
#include "store/local_fs.hh"

namespace rmem::server {

struct StoreRecord {
  Uuid identity{};
  ClaimRecord claim;
};

// A directory used by one server at a time. Calls block on the disk; they are
// made when a store is first exported and when a claim changes, never on the
// path of data.
class StateDir {
 public:
  // Creates it (0700) and locks it. kBusy: another server has it.
  static Result<StateDir> open(const std::string& path);

  // The record of the file or directory with these facts. Makes and keeps a new
  // one, with a new identity (or the store's own), if there is none or it is not
  // the one it was.
  // kCorrupt: there is a record, but it cannot be understood.
  Result<StoreRecord> load(const store::FileFacts& facts) const;

  // 32 secret bytes, made when they are first asked for and the same from then on.
  Result<std::array<std::uint8_t, 32>> secret(const std::string& name) const;

  // On stable storage when it returns ok; otherwise the old record stands.
  Status save(const store::FileFacts& facts, const StoreRecord& record) const;

 private:
  StateDir(std::string path, UniqueFd lock) : path_(std::move(path)), lock_(std::move(lock)) {}
  std::string record_path(const store::FileFacts& facts) const;

  std::string path_;
  UniqueFd lock_;
};

}  // namespace rmem::server
