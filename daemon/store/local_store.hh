// SPDX-License-Identifier: MIT
// A store of this host, opened as its Spec says, with its filters.
#pragma once

#include <memory>
#include <vector>

#include "base/reactor.hh"
#include "base/result.hh"
#include "base/uuid.hh"
#include "base/workers.hh"
#include "store/dir.hh"
#include "store/file.hh"
#include "store/filter.hh"
#include "store/spec.hh"
#include "store/store.hh"

namespace rmem::store {

class LocalStore {
 public:
  // As FileStore::open() and DirStore::open().
  static Result<LocalStore> open(Reactor& reactor, Workers& workers, const Spec& spec,
                                 bool read_only);
  // One that nobody can find again.
  explicit LocalStore(std::unique_ptr<Store> store) : store_(std::move(store)) {}

  Store& store() {
    Store* const top = filters_.top();
    return top != nullptr ? *top : *store_;
  }
  // Null for memory.
  const FileFacts* facts() const;
  // Is it what `spec` asks for? kCorrupt for another size or chunk, kUsage for
  // other filters.
  Status check(const Spec& spec) const;
  // Of a file. A directory has, and memory is, its own.
  void set_identity(const Uuid& identity);
  // Is it locked against other writers as long as it is open?
  bool exclusive() const { return dir_ != nullptr; }
  // Ends that lock. It can only be read from now on.
  void let_go();

 private:
  std::unique_ptr<Store> store_;
  FilterStack filters_;
  std::vector<Filter> filters_given_;
  FileStore* file_ = nullptr;  // store_, if it is one
  DirStore* dir_ = nullptr;    // likewise
};

}  // namespace rmem::store
