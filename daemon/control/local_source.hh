// SPDX-License-Identifier: MIT
// A store on this host as a region's source.
#pragma once

#include <optional>

#include "base/reactor.hh"
#include "base/unique_fd.hh"
#include "base/workers.hh"
#include "control/source.hh"
#include "store/local_store.hh"
#include "store/spec.hh"

namespace rmem::control {

// Up once opened, and never down again: a file does not go away. The writer
// claim is a lock on the file, or the store's own, held for as long as the source
// is open, so that two regions of this host cannot write the same store.
class LocalSource final : public Source {
 public:
  LocalSource(Reactor& reactor, Workers& workers, store::Spec spec, SourceOptions options,
              Listener& listener);

  void open(Opened done) override;
  void resume(std::optional<store::WriterClaim> claim) override;
  void claim(const store::WriterClaim& claim, Finished done) override;
  std::uint64_t claim_generation() const override { return claimed_ ? 1 : 0; }
  void release(Finished done) override;
  void close() override;
  store::Store& store() override { return store_->store(); }

 private:
  Status try_open();
  Status try_claim();
  void try_resume();

  Reactor& reactor_;
  Workers& workers_;
  store::Spec spec_;
  SourceOptions options_;
  Listener& listener_;
  Reactor::Timer retry_;
  bool wants_claim_ = false;
  std::optional<store::LocalStore> store_;
  bool claimed_ = false;
  UniqueFd lock_;  // of a file that is claimed
};

}  // namespace rmem::control
