// SPDX-License-Identifier: MIT
#include "server/export.hh"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cctype>
#include <cerrno>

#include "base/log.hh"
#include "wire/messages.hh"

namespace rmem::server {
namespace {

const log::Source kExportLog("export");

bool valid_name(std::string_view name) {
  if (name.empty() || name.size() > wire::kMaxName) return false;
  if (!std::isalnum(static_cast<unsigned char>(name[0]))) return false;
  return std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '_' || c == '.' || c == '-';
  });
}

}  // namespace

ServedStore::ServedStore(store::LocalStore store) : store_(std::move(store)) {
  record_.identity = store_.store().geometry().identity;
}

ServedStore::ServedStore(store::LocalStore store, const StateDir& state, StoreRecord record)
    : store_(std::move(store)), state_(&state), record_(std::move(record)) {
  store_.set_identity(record_.identity);
}

void ServedStore::claim(const ClaimRequest& request, Claimant& who, Claimed done) {
  if (store_.store().geometry().read_only) return done(EROFS, 0);
  const ClaimAnswer answer = decide(record_.claim, newest_session_, request);
  if (answer.err != 0) return done(answer.err, 0);
  const bool same_writer = record_.claim.writer == request.writer;
  if (const Status kept = keep(answer.record); !kept.ok()) return done(EIO, 0);
  if (!same_writer || newest_session_ != request.session) {
    // One after the other off the list: each may take others along.
    while (!joined_.empty()) {
      Claimant* const lane = joined_.back();
      joined_.pop_back();
      same_writer ? lane->superseded() : lane->fenced();
    }
  }
  newest_session_ = request.session;

  Claimant* const before = std::exchange(holder_, &who);
  if (before != nullptr && before != &who) {
    if (same_writer)
      before->superseded();
    else
      before->fenced();
    // A claim that the old session still waits for is not granted any more.
    std::vector<Waiting> lost;
    for (Waiting& one : waiting_)
      if (one.who == before) lost.push_back(std::move(one));
    std::erase_if(waiting_, [before](const Waiting& one) { return one.who == before; });
    for (const Waiting& one : lost) one.done(ESTALE, 0);
  }
  if (modifying_ == 0) return done(0, record_.claim.generation);
  waiting_.push_back({&who, std::move(done)});
}

int ServedStore::join(const ClaimRequest& request, Claimant& who) {
  const bool mine = record_.claim.writer == request.writer;
  // What the claim itself would hear, too: nothing but that is final.
  if (!mine && decide(record_.claim, newest_session_, request).err == ESTALE) return ESTALE;
  if (!mine || holder_ == nullptr || newest_session_ != request.session) return EPERM;
  if (std::find(joined_.begin(), joined_.end(), &who) == joined_.end()) joined_.push_back(&who);
  return 0;
}

int ServedStore::release(Claimant& who) {
  if (holder_ != &who) return EPERM;
  if (const Status kept = keep(released(record_.claim)); !kept.ok()) return EIO;
  holder_ = nullptr;
  newest_session_ = 0;
  joined_.clear();
  return 0;
}

void ServedStore::leave(Claimant& who) {
  if (holder_ == &who) holder_ = nullptr;
  std::erase(joined_, &who);
  std::erase_if(waiting_, [&who](const Waiting& one) { return one.who == &who; });
}

bool ServedStore::claimed_by(const Claimant& who) const {
  return holder_ == &who || std::find(joined_.begin(), joined_.end(), &who) != joined_.end();
}

void ServedStore::modification_finished() {
  if (--modifying_ > 0) return;
  const auto granted = std::exchange(waiting_, {});
  for (const Waiting& one : granted) one.done(0, record_.claim.generation);
}

Status ServedStore::keep(const ClaimRecord& claim) {
  if (claim == record_.claim) return Status();
  StoreRecord next = record_;
  next.claim = claim;
  if (state_ != nullptr) {
    if (Status saved = state_->save(*facts(), next); !saved.ok()) {
      kExportLog.error("cannot keep the claim: {}", saved.cause());
      return saved;
    }
  }
  record_ = std::move(next);
  return Status();
}

Result<ExportSpec> ExportSpec::parse(std::string_view text) {
  ExportSpec spec;
  const auto equals = text.find('=');
  if (equals == std::string_view::npos)
    return Status(Code::kUsage, "`" + std::string(text) + "': not of the form NAME=STORE[,ro]",
                  "as in data=file:///srv/data or scratch=mem://1GiB");
  spec.name = text.substr(0, equals);
  if (Status valid = check_name(spec.name); !valid.ok()) return valid;
  std::string_view store = text.substr(equals + 1);
  if (store.ends_with(",ro")) {
    spec.read_only = true;
    store.remove_suffix(3);
  }
  auto parsed = store::Spec::parse(store);
  if (!parsed) return parsed.status();
  spec.store = *std::move(parsed);
  return spec;
}

Status ExportSpec::allow_one(std::vector<ExportSpec>& specs, std::string_view text) {
  const auto equals = text.find('=');
  if (equals == std::string_view::npos)
    return Status(Code::kUsage, "`" + std::string(text) + "': not of the form NAME=IDENTITY[,ro]",
                  "as in data=cn:alice or data=authenticated,ro");
  const std::string_view name = text.substr(0, equals);
  const auto spec = std::find_if(specs.begin(), specs.end(),
                                 [name](const ExportSpec& one) { return one.name == name; });
  if (spec == specs.end())
    return Status(Code::kUsage, "`" + std::string(text) + "': there is no such export",
                  "give it with --export, too");
  std::string_view identity = text.substr(equals + 1);
  const bool reader = identity.ends_with(",ro");
  if (reader) identity.remove_suffix(3);
  if (const Status good = check_identity(identity); !good.ok())
    return good.with_context("`" + std::string(identity) + "'");
  if (!spec->allow) spec->allow.emplace();
  spec->allow->push_back({std::string(identity), reader ? Access::kRead : Access::kWrite});
  return Status();
}

Status ExportSpec::check_name(std::string_view name) {
  if (valid_name(name)) return Status();
  return Status(Code::kUsage, "`" + std::string(name) + "' cannot be the name of an export",
                "names are letters, digits, `_', `.' and `-', starting with a letter or digit");
}

Export::Export(Reactor& reactor, std::string name, store::Spec spec,
               std::shared_ptr<ServedStore> store)
    : name(std::move(name)),
      spec(std::move(spec)),
      store(std::move(store)),
      reads(reactor),
      writes(reactor) {}

Access Export::access(const Peer& peer) const {
  const bool fixed = read_only || store->store().geometry().read_only;
  return std::min(allowed(allow, peer), fixed ? Access::kRead : Access::kWrite);
}

Result<Exports> Exports::open(Reactor& reactor, Workers& workers,
                              const std::vector<ExportSpec>& specs, const std::string& state_dir,
                              bool insecure) {
  Exports exports(reactor, workers, state_dir, insecure);
  if (Status opened = exports.replace(specs); !opened.ok()) return opened;
  return exports;
}

Status Exports::replace(const std::vector<ExportSpec>& specs) {
  decltype(exports_) next;
  const auto fail = [this, &next](Status why) {
    next.clear();
    sweep();
    return why;
  };
  // Those for writing first: what has several names is opened once, for all.
  for (const bool read_only : {false, true})
    for (const ExportSpec& spec : specs) {
      if (spec.read_only != read_only) continue;
      if (next.contains(spec.name))
        return fail(Status(Code::kUsage, "export `" + spec.name + "' is given twice"));
      auto served = store_for(spec);
      if (!served) return fail(served.status().with_context("export `" + spec.name + "'"));
      auto before = find(spec.name);
      next[spec.name] = before != nullptr && before->store == *served
                            ? before
                            : std::make_shared<Export>(*reactor_, spec.name, spec.store, *served);
    }
  // From here on nothing fails.
  for (const ExportSpec& spec : specs) {
    Export& one = *next[spec.name];
    one.read_only = spec.read_only;
    one.allow = spec.allow.value_or(usual_);
    one.reads.set_rate(spec.read_rate);
    one.writes.set_rate(spec.write_rate);
  }
  exports_ = std::move(next);
  sweep();
  return Status();
}

// Who has it: the list, exports, requests under way.
void Exports::sweep() {
  std::erase_if(stores_, [](const auto& served) { return served.use_count() == 1; });
}

Result<std::shared_ptr<ServedStore>> Exports::store_for(const ExportSpec& spec) {
  if (const auto before = find(spec.name);
      before != nullptr && before->spec.base == spec.store.base &&
      before->spec.filters == spec.store.filters &&
      (spec.read_only || !before->store->store().geometry().read_only))
    return before->store;
  if (const auto same = same_as(spec.store, spec.read_only)) {
    if (const Status fits = same->check(spec.store); !fits.ok()) return fits;
    return same;
  }
  const bool lasts = spec.store.kind != store::Spec::Kind::kMem;
  if (lasts)
    if (const auto opened = state(); !opened) return opened.status();
  auto store = store::LocalStore::open(*reactor_, *workers_, spec.store, spec.read_only);
  if (!store) return store.status();
  if (!lasts) {
    stores_.push_back(std::make_shared<ServedStore>(std::move(store).value()));
  } else {
    auto record = state_->load(*store->facts());
    if (!record) return record.status();
    stores_.push_back(std::make_shared<ServedStore>(std::move(store).value(), *state_,
                                                    std::move(record).value()));
  }
  return stores_.back();
}

// A directory can be opened only once, so it is looked for before. What was opened for
// reading is of no use to who wants to write.
std::shared_ptr<ServedStore> Exports::same_as(const store::Spec& spec, bool read_only) const {
  struct stat info = {};
  if (spec.path.empty() || ::stat(spec.path.c_str(), &info) != 0) return nullptr;
  const std::uint64_t device = std::uint64_t{major(info.st_dev)} << 32 | minor(info.st_dev);
  for (const auto& served : stores_) {
    const store::FileFacts* const facts = served->facts();
    if (facts != nullptr && facts->device == device && facts->inode == info.st_ino &&
        (read_only || !served->store().geometry().read_only))
      return served;
  }
  return nullptr;
}

Result<StateDir*> Exports::state() {
  if (!state_) {
    auto opened = StateDir::open(state_dir_);
    if (!opened) return opened.status();
    state_ = std::make_unique<StateDir>(std::move(opened).value());
  }
  return state_.get();
}

std::shared_ptr<Export> Exports::find(std::string_view name) const {
  const auto found = exports_.find(name);
  return found != exports_.end() ? found->second : nullptr;
}

bool Exports::has_secrets() const {
  return std::any_of(exports_.begin(), exports_.end(),
                     [this](const auto& one) { return one.second->allow != usual_; });
}

}  // namespace rmem::server
