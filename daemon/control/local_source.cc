// SPDX-License-Identifier: MIT
#include "control/local_source.hh"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>
#include <chrono>
#include <utility>

namespace rmem::control {

LocalSource::LocalSource(Reactor& reactor, Workers& workers, store::Spec spec,
                         SourceOptions options, Listener& listener)
    : reactor_(reactor),
      workers_(workers),
      spec_(std::move(spec)),
      options_(options),
      listener_(listener),
      retry_(reactor, [this] { try_resume(); }) {}

Status LocalSource::try_open() {
  if (store_) return Status();
  store::Spec spec = spec_;
  // What was there is not made anew, it is waited for.
  if (options_.expected) spec.size.reset();
  auto opened = store::LocalStore::open(reactor_, workers_, spec, options_.read_only);
  if (!opened.ok()) return opened.status();
  const store::Geometry& g = opened->store().geometry();
  if (options_.expected &&
      (g.identity != options_.expected->identity || g.size != options_.expected->size)) {
    return Status(Code::kCorrupt, spec_.path + ": another store than the one that was attached",
                  "put the old one back, or detach the region", ESTALE);
  }
  store_ = std::move(*opened);
  return Status();
}

Status LocalSource::try_claim() {
  if (claimed_) return Status();
  if (!store_->exclusive()) {
    UniqueFd fd(::open(spec_.path.c_str(), O_RDWR | O_CLOEXEC | O_NOCTTY));
    if (!fd) return Status::from_errno(errno, spec_.path);
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) return Status::from_errno(errno, spec_.path);
      return Status(Code::kBusy, spec_.path + ": another writer has it",
                    "detach the other region, or attach with --read-only", EBUSY);
    }
    lock_ = std::move(fd);
  }
  claimed_ = true;
  return Status();
}

void LocalSource::open(Opened done) {
  if (const Status s = try_open(); !s.ok()) return done(s);
  done(store_->store().geometry());
}

void LocalSource::resume(std::optional<store::WriterClaim> claim) {
  wants_claim_ = claim.has_value();
  retry_.arm(std::chrono::milliseconds(0));
}

void LocalSource::try_resume() {
  Status s = try_open();
  if (s.ok() && wants_claim_) s = try_claim();
  if (s.ok()) return listener_.on_up();
  if (s.code() == Code::kCorrupt) return listener_.on_failed(s);
  listener_.on_down(s);  // not mounted yet, or the predecessor's lock is not gone yet
  retry_.arm(std::chrono::seconds(1));
}

void LocalSource::claim(const store::WriterClaim&, Finished done) { done(try_claim()); }

void LocalSource::release(Finished done) {
  close();
  done(Status());
}

void LocalSource::close() {
  retry_.disarm();
  claimed_ = false;
  lock_.reset();
  if (store_) store_->let_go();
}

}  // namespace rmem::control
