// SPDX-License-Identifier: MIT
// Where a region's bytes come from: a store with a life of its own.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/reactor.hh"
#include "base/result.hh"
#include "control/options.hh"
#include "store/remote.hh"
#include "store/store.hh"
#include "transport/tls_credentials.hh"

namespace rmem::control {

// What the daemon needs of a store beside reading and writing it: to open it,
// to own it, to hear whether it is there. RemoteStore's life (store/remote.hh),
// with local stores as the simple case: up once opened.
class Source {
 public:
  using Listener = store::RemoteStore::Listener;
  using Opened = std::function<void(Result<store::Geometry>)>;
  using Finished = std::function<void(const Status&)>;

  virtual ~Source() = default;

  // One try. Calls back on the reactor's thread, possibly at once.
  virtual void open(Opened done) = 0;
  // For the successor of a daemon that had it open: tries until it is there and
  // tells the listener, not before this call has returned.
  virtual void resume(std::optional<store::WriterClaim> claim) = 0;
  virtual void claim(const store::WriterClaim& claim, Finished done) = 0;
  virtual std::uint64_t claim_generation() const = 0;
  virtual void release(Finished done) = 0;
  // Outstanding operations complete with EAGAIN.
  virtual void close() = 0;
  virtual store::Store& store() = 0;
  // Connections in use; none where it is local.
  virtual unsigned lanes() const { return 0; }
  // What carries them, as transport::Connection::kind(); "" while nothing does.
  virtual const char* transport() const { return ""; }
  // What TLS in user space has cost on them.
  virtual std::chrono::nanoseconds crypto_time() const { return {}; }
  // Bytes that did not have to travel, because they were compressed.
  virtual std::uint64_t bytes_saved() const { return 0; }
};

// `expected`: the size and identity it had; unset at the first attach.
struct SourceOptions {
  bool read_only = false;
  bool insecure = false;
  std::optional<store::Geometry> expected;
};

class SourceFactory {
 public:
  virtual ~SourceFactory() = default;
  // Makes the source of `uri` without opening it. kUsage: no URI that this
  // program knows. `listener` must outlive it.
  virtual Result<std::unique_ptr<Source>> make(const std::string& uri, const SourceOptions& options,
                                               Source::Listener& listener) = 0;
  // Is it on this host, has it filters or names it files for TLS? Then only root may
  // attach it: the daemon would open files with its own rights, or spend its own memory,
  // for whoever asks.
  virtual bool is_local(const std::string& uri) const = 0;
};

// rmem://, rmems://, rmem+quic://, rmem+unix:// and the local stores that rmemd takes; filters on
// all. `usual`: what holds for every rmem:// and the like. Its TLS is for rmems:// that names
// no files of its own; those have to be root's to name.
std::unique_ptr<SourceFactory> source_factory(Reactor& reactor,
                                              const store::RemoteOptions& usual = {});

}  // namespace rmem::control
