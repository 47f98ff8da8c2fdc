// SPDX-License-Identifier: MIT
#include "store/local_store.hh"

#include <utility>

#include "store/mem.hh"

namespace rmem::store {

Result<LocalStore> LocalStore::open(Reactor& reactor, Workers& workers, const Spec& spec,
                                    bool read_only) {
  LocalStore local(nullptr);
  if (spec.kind == Spec::Kind::kMem) {
    local.store_ = std::make_unique<MemStore>(*spec.size);
  } else if (spec.kind == Spec::Kind::kFile) {
    auto file = FileStore::open(workers, spec.path, {.read_only = read_only, .size = spec.size});
    if (!file) return file.status();
    local.file_ = file->get();
    local.store_ = std::move(file).value();
  } else {
    auto dir = DirStore::open(workers, spec.path,
                              {.read_only = read_only, .size = spec.size, .chunk = spec.chunk});
    if (!dir) return dir.status();
    local.dir_ = dir->get();
    local.store_ = std::move(dir).value();
  }
  local.filters_ = FilterStack(reactor, spec.filters, *local.store_, spec.base);
  local.filters_given_ = spec.filters;
  return local;
}

const FileFacts* LocalStore::facts() const {
  if (file_ != nullptr) return &file_->facts();
  return dir_ != nullptr ? &dir_->facts() : nullptr;
}

Status LocalStore::check(const Spec& spec) const {
  if (spec.filters != filters_given_)
    return Status(Code::kUsage, spec.base + ": the same store with other filters",
                  "give all names of a store the same filters");
  const std::uint64_t size = store_->geometry().size;
  if (Status same = expect_same(spec.path, "size", size, spec.size.value_or(size)); !same.ok())
    return same;
  if (dir_ == nullptr) return Status();
  return expect_same(spec.path, "chunk", dir_->chunk(), spec.chunk.value_or(dir_->chunk()));
}

void LocalStore::set_identity(const Uuid& identity) {
  if (file_ != nullptr) file_->set_identity(identity);
}

void LocalStore::let_go() {
  if (dir_ != nullptr) dir_->let_go();
}

}  // namespace rmem::store
