// SPDX-License-Identifier: MIT
#include "control/source.hh"

#include <utility>
#include <vector>

#include "base/workers.hh"
#include "control/local_source.hh"
#include "store/filter.hh"

namespace rmem::control {
namespace {

class RemoteSource final : public Source {
 public:
  RemoteSource(Reactor& reactor, std::unique_ptr<store::RemoteStore> store,
               const std::vector<store::Filter>& filters)
      : store_(std::move(store)),
        filters_(reactor, filters, *store_, store_->address().to_string()) {}

  void open(Opened done) override { store_->open(std::move(done)); }
  void resume(std::optional<store::WriterClaim> claim) override { store_->resume(claim); }
  void claim(const store::WriterClaim& claim, Finished done) override {
    store_->claim(claim, std::move(done));
  }
  std::uint64_t claim_generation() const override { return store_->claim_generation(); }
  void release(Finished done) override { store_->release(std::move(done)); }
  void close() override { store_->close(); }
  store::Store& store() override {
    if (filters_.top() != nullptr) return *filters_.top();
    return *store_;
  }
  unsigned lanes() const override { return store_->lanes(); }
  const char* transport() const override { return store_->transport(); }
  std::chrono::nanoseconds crypto_time() const override { return store_->crypto_time(); }
  std::uint64_t bytes_saved() const override { return store_->counters().bytes_saved; }

 private:
  std::unique_ptr<store::RemoteStore> store_;
  store::FilterStack filters_;
};

class Factory final : public SourceFactory {
 public:
  Factory(Reactor& reactor, store::RemoteOptions usual)
      : reactor_(reactor), usual_(std::move(usual)) {
    usual_.budget = std::make_shared<store::ConnectionBudget>(reactor);
  }

  bool is_local(const std::string& uri) const override {
    if (!is_remote(uri)) return true;
    const auto address = store::RemoteAddress::parse(uri);
    return address.ok() && address->tls_files.configured();
  }

  Result<std::unique_ptr<Source>> make(const std::string& uri, const SourceOptions& options,
                                       Source::Listener& listener) override {
    auto filtered = store::FilteredUri::parse(uri);
    if (!filtered.ok()) return filtered.status();
    if (!is_remote(filtered->base)) return make_local(uri, options, listener);
    auto address = store::RemoteAddress::parse(filtered->base);
    if (!address.ok()) return address.status();
    store::RemoteOptions remote = usual_;
    remote.read_only = options.read_only;
    remote.insecure = options.insecure;
    remote.expected = options.expected;
    auto store = store::RemoteStore::create(reactor_, std::move(*address), remote, listener);
    if (!store.ok()) return store.status();
    return std::unique_ptr<Source>(
        new RemoteSource(reactor_, std::move(*store), filtered->filters));
  }

 private:
  static bool is_remote(const std::string& uri) {
    return uri.starts_with("rmem://") || uri.starts_with("rmems://") ||
           uri.starts_with("rmem+quic://") || uri.starts_with("rmem+unix://");
  }

  Result<std::unique_ptr<Source>> make_local(const std::string& uri, const SourceOptions& options,
                                             Source::Listener& listener) {
    auto spec = store::Spec::parse(uri);
    if (!spec.ok()) return spec.status();
    if (spec->kind == store::Spec::Kind::kMem) {
      return Status(Code::kUsage, "`" + uri + "' is not a store that lasts",
                    "export it by rmem-server and attach rmem://host:7070/export");
    }
    if (!workers_) {
      auto workers = Workers::create(reactor_, kWorkers);
      if (!workers.ok()) return workers.status();
      workers_ = std::move(*workers);
    }
    return std::unique_ptr<Source>(
        new LocalSource(reactor_, *workers_, std::move(*spec), options, listener));
  }

  static constexpr unsigned kWorkers = 4;

  Reactor& reactor_;
  store::RemoteOptions usual_;
  std::unique_ptr<Workers> workers_;  // for local stores, made with the first of them
};

}  // namespace

std::unique_ptr<SourceFactory> source_factory(Reactor& reactor, const store::RemoteOptions& usual) {
  return std::make_unique<Factory>(reactor, usual);
}

}  // namespace rmem::control
