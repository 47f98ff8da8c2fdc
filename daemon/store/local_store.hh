// SPDX-License-Identifier: MIT
// A store of this host, opened as its Spec says.
#pragma once

#include <memory>

#include "base/result.hh"
#include "base/uuid.hh"
#include "base/workers.hh"
#include "store/dir.hh"
#include "store/file.hh"
#include "store/spec.hh"
#include "store/store.hh"

namespace rmem::store {

class LocalStore {
 public:
  // As FileStore::open() and DirStore::open().
  static Result<LocalStore> open(Workers& workers, const Spec& spec, bool read_only);
  // One that nobody can find again.
  explicit LocalStore(std::unique_ptr<Store> store) : store_(std::move(store)) {}

  Store& store() { return *store_; }
  // Null for memory.
  const FileFacts* facts() const;
  // Has it the size, and chunk, that `spec` asks for? kCorrupt otherwise.
  Status check(const Spec& spec) const;
  // Of a file. A directory has, and memory is, its own.
  void set_identity(const Uuid& identity);
  // Is it locked against other writers as long as it is open?
  bool exclusive() const { return dir_ != nullptr; }
  // Ends that lock. It can only be read from now on.
  void let_go();

 private:
  std::unique_ptr<Store> store_;
  FileStore* file_ = nullptr;  // store_, if it is one
  DirStore* dir_ = nullptr;    // likewise
};

}  // namespace rmem::store
