// SPDX-License-Identifier: MIT
// The verb attach: open the source, make the region, claim the store, serve.
#include <bit>
#include <cerrno>
#include <utility>

#include "control/regions.hh"

namespace rmem::control {
namespace {

// The largest folios to ask for: the larger, the cheaper is each page. A page
// that is written makes its folio busy as a whole while it is copied out, so
// writable regions get smaller ones.
constexpr std::uint64_t kMaxFolioReadOnly = 256u << 10;
constexpr std::uint64_t kMaxFolioWritable = 64u << 10;

std::uint8_t folio_order(const AttachOptions& o) {
  const std::uint64_t most = o.read_only ? kMaxFolioReadOnly : kMaxFolioWritable;
  const std::uint64_t bytes = std::min<std::uint64_t>(o.chunk, most);
  return static_cast<std::uint8_t>(std::bit_width(bytes / 4096) - 1);
}

std::uint32_t on_loss(const std::string& name) {
  return name == "kill"    ? RMEM_ON_LOSS_KILL
         : name == "error" ? RMEM_ON_LOSS_ERROR
                           : RMEM_ON_LOSS_WAIT;
}

kchan::RegionInfo wanted(const Notes& notes, std::uint64_t size, const std::string& instance) {
  const AttachOptions& o = notes.options;
  kchan::RegionInfo r;
  r.name = o.name;
  r.size = size;
  r.chunk = o.chunk;
  r.folio_order = folio_order(o);
  r.flags = o.read_only ? RMEM_REGION_READ_ONLY : 0;
  r.uid = o.uid;
  r.gid = o.gid;
  r.mode = o.mode;
  r.fault_timeout_ms = static_cast<std::uint32_t>(o.fault_timeout.count());
  r.sync_timeout_ms = static_cast<std::uint32_t>(o.sync_timeout.count());
  r.on_loss = on_loss(o.on_loss);
  r.resident_limit = o.resident_limit;
  r.dirty_limit = o.dirty_limit;
  r.push_threshold = o.push_threshold;
  r.source = o.source;
  r.instance = instance;
  r.blob = notes.to_blob();
  return r;
}

}  // namespace

struct Regions::Attaching {
  Handle a;
  kchan::RegionInfo info;
  bool made = false;
  std::function<void(Result<Attached>)> done;
};

void Regions::attach(const AttachOptions& options, std::function<void(Result<Attached>)> done) {
  if (const Status s = validate(options); !s.ok()) return done(s);
  if (const auto it = by_name_.find(options.name);
      it != by_name_.end() && (it->second->phase == Attachment::Phase::kAttaching ||
                               it->second->phase == Attachment::Phase::kDetaching)) {
    return done(find(options.name).status());
  }
  auto existing = kernel_.get(options.name);
  if (existing.ok()) return attach_again(*existing, options, done);
  if (existing.status().code() != Code::kNotFound) return done(existing.status());
  if (auto gone = by_name_.extract(options.name))
    bury(std::move(gone.mapped()));  // unmade by others

  auto a = std::make_shared<Attachment>(Notes{options, {}, 0}, kernel_, pager_);
  SourceOptions how;
  how.read_only = options.read_only;
  how.insecure = options.insecure;
  auto source = sources_.make(options.source, how, *a);
  if (!source.ok()) return done(source.status());
  a->source = std::move(*source);
  by_name_[options.name] = a;
  auto attaching = std::make_shared<Attaching>(Attaching{a, {}, false, std::move(done)});
  a->source->open([this, attaching](const Result<store::Geometry>& geometry) {
    attach_opened(attaching, geometry);
  });
}

// There is a region of that name: fine if it is the very same.
void Regions::attach_again(const kchan::RegionInfo& info, const AttachOptions& options,
                           const std::function<void(Result<Attached>)>& done) {
  auto found = find(options.name);
  if (!found.ok()) return done(found.status());
  const Handle& a = *found;
  if (!(a->options() == options)) {
    return done(Status(Code::kBusy,
                       "region " + options.name + " exists with another source or other options (" +
                           a->options().source + ")",
                       "detach it first, or take another name"));
  }
  if (!a->failure().ok()) {
    return done(Status(a->failure().code(),
                       "region " + options.name + " has failed: " + a->failure().cause(),
                       "detach it, then attach again"));
  }
  done(Attached{info.id, info.size, false, a->options().bind_created});
}

void Regions::attach_opened(const std::shared_ptr<Attaching>& attaching,
                            const Result<store::Geometry>& geometry) {
  Attachment& a = *attaching->a;
  if (!geometry.ok()) return attach_failed(attaching, geometry.status());
  const store::Geometry& g = *geometry;
  if (g.read_only && !a.options().read_only) {
    return attach_failed(attaching, Status(Code::kPermission, a.options().source + ": read-only",
                                           "attach it with --read-only", EROFS));
  }
  a.notes().identity = g.identity;
  attaching->info = wanted(a.notes(), g.size, instance_);
  auto made = kernel_.make(attaching->info);
  if (!made.ok()) return attach_failed(attaching, made.status());
  attaching->made = true;
  attaching->info.id = made->id;
  attaching->info.writer = made->writer;
  if (const int err = a.serve(attaching->info)) {
    return attach_failed(attaching, Status::from_errno(err, "serving region " + a.name()));
  }
  begin_pull(a, g.size);
  if (a.options().read_only) return attach_claimed(attaching, Status());
  store::WriterClaim claim;
  claim.writer = made->writer;
  claim.take_over = a.options().take_over;
  a.source->claim(claim, [this, attaching](const Status& s) { attach_claimed(attaching, s); });
}

void Regions::attach_claimed(const std::shared_ptr<Attaching>& attaching, const Status& claimed) {
  Attachment& a = *attaching->a;
  if (!claimed.ok()) {
    if (claimed.err() == EAGAIN) {
      return attach_failed(attaching, Status(Code::kUnreachable, claimed.cause(), "try again"));
    }
    return attach_failed(attaching, claimed);
  }
  a.opened();
  a.log().info("attached, {}, {} bytes", a.options().source, attaching->info.size);
  attaching->done(
      Attached{attaching->info.id, attaching->info.size, true, a.options().bind_created});
}

void Regions::attach_failed(const std::shared_ptr<Attaching>& attaching, Status why) {
  const Handle a = attaching->a;
  if (attaching->made) {
    if (const Status s = kernel_.unmake(attaching->info.id); !s.ok()) {
      // Somebody was quick and has it open. It stays, failed, until it is
      // detached.
      a->log().error("cannot be unmade after a failed attach: {}", s.cause());
      a->on_failed(why);
      a->source->close();
      a->strand(why);
      return attaching->done(why);
    }
  }
  by_name_.erase(a->name());
  bury(a);
  // Not from within a call of the source, which goes with the attachment.
  reactor_.post([attaching, why = std::move(why)] { attaching->done(why); });
}

}  // namespace rmem::control
