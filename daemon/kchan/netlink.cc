// SPDX-License-Identifier: MIT
#include "kchan/netlink.hh"

#include <netlink/genl/ctrl.h>
#include <netlink/genl/family.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <iterator>
#include <utility>

#include "kchan/errors.hh"

namespace rmem::kchan {
namespace {

// Attributes of one region message. Absent ones leave the defaults.
RegionInfo parse_region(nlattr* const* attributes) {
  const auto u32 = [&](int type, std::uint32_t& out) {
    if (attributes[type]) out = nla_get_u32(attributes[type]);
  };
  const auto u64 = [&](int type, std::uint64_t& out) {
    if (attributes[type]) out = nla_get_u64(attributes[type]);
  };
  const auto text = [&](int type, std::string& out) {
    const nlattr* a = attributes[type];
    if (!a) return;
    const auto* s = static_cast<const char*>(nla_data(a));
    out.assign(s, strnlen(s, static_cast<std::size_t>(nla_len(a))));
  };

  RegionInfo r;
  u32(RMEM_A_REGION_ID, r.id);
  text(RMEM_A_REGION_NAME, r.name);
  u64(RMEM_A_REGION_SIZE, r.size);
  u32(RMEM_A_REGION_CHUNK, r.chunk);
  if (attributes[RMEM_A_REGION_FOLIO_ORDER]) {
    r.folio_order = nla_get_u8(attributes[RMEM_A_REGION_FOLIO_ORDER]);
  }
  u32(RMEM_A_REGION_FLAGS, r.flags);
  u32(RMEM_A_REGION_UID, r.uid);
  u32(RMEM_A_REGION_GID, r.gid);
  u32(RMEM_A_REGION_MODE, r.mode);
  u32(RMEM_A_REGION_FAULT_TIMEOUT_MS, r.fault_timeout_ms);
  u32(RMEM_A_REGION_SYNC_TIMEOUT_MS, r.sync_timeout_ms);
  u32(RMEM_A_REGION_ON_LOSS, r.on_loss);
  u64(RMEM_A_REGION_RESIDENT_LIMIT, r.resident_limit);
  u64(RMEM_A_REGION_DIRTY_LIMIT, r.dirty_limit);
  u64(RMEM_A_REGION_PUSH_THRESHOLD, r.push_threshold);
  text(RMEM_A_REGION_SOURCE, r.source);
  text(RMEM_A_REGION_INSTANCE, r.instance);
  if (const nlattr* blob = attributes[RMEM_A_REGION_BLOB]) {
    r.blob.assign(static_cast<const char*>(nla_data(blob)),
                  static_cast<std::size_t>(nla_len(blob)));
  }
  if (const nlattr* writer = attributes[RMEM_A_REGION_WRITER];
      writer && nla_len(writer) == RMEM_WRITER_SIZE) {
    std::memcpy(r.writer.data(), nla_data(writer), r.writer.size());
  }
  u32(RMEM_A_REGION_STATE, r.state);
  text(RMEM_A_REGION_REASON, r.reason);
  u32(RMEM_A_REGION_USERS, r.users);
  if (attributes[RMEM_A_REGION_DAEMON_PID]) {
    r.daemon_pid = nla_get_u32(attributes[RMEM_A_REGION_DAEMON_PID]);
  }
  u32(RMEM_A_REGION_WAITING, r.waiting);
  u64(RMEM_A_REGION_RESIDENT_BYTES, r.resident_bytes);
  u64(RMEM_A_REGION_DIRTY_BYTES, r.dirty_bytes);
  u64(RMEM_A_REGION_WRITEBACK_BYTES, r.writeback_bytes);
  u64(RMEM_A_REGION_FETCHED_BYTES, r.fetched_bytes);
  u64(RMEM_A_REGION_PUSHED_BYTES, r.pushed_bytes);
  u64(RMEM_A_REGION_FAULTS_DEMAND, r.faults_demand);
  u64(RMEM_A_REGION_FAULTS_RESIDENT, r.faults_resident);
  u64(RMEM_A_REGION_FAULTS_WRITE_PROTECT, r.faults_write_protect);
  u64(RMEM_A_REGION_ERRORS, r.errors);
  u64(RMEM_A_REGION_LOST_BYTES, r.lost_bytes);
  u64(RMEM_A_REGION_MODULE_BYTES, r.module_bytes);
  return r;
}

// Numbers are as long as they have to be; text and bytes may have any length.
struct Policy {
  nla_policy of[RMEM_A_REGION_MAX + 1] = {};
  Policy() {
    of[RMEM_A_REGION_FOLIO_ORDER].type = NLA_U8;
    for (const int type : {RMEM_A_REGION_ID, RMEM_A_REGION_CHUNK, RMEM_A_REGION_FLAGS,
                           RMEM_A_REGION_UID, RMEM_A_REGION_GID, RMEM_A_REGION_MODE,
                           RMEM_A_REGION_FAULT_TIMEOUT_MS, RMEM_A_REGION_SYNC_TIMEOUT_MS,
                           RMEM_A_REGION_ON_LOSS, RMEM_A_REGION_STATE, RMEM_A_REGION_USERS,
                           RMEM_A_REGION_DAEMON_PID, RMEM_A_REGION_WAITING, RMEM_A_REGION_EVENT})
      of[type].type = NLA_U32;
    for (const int type :
         {RMEM_A_REGION_SIZE, RMEM_A_REGION_RESIDENT_LIMIT, RMEM_A_REGION_DIRTY_LIMIT,
          RMEM_A_REGION_RESIDENT_BYTES, RMEM_A_REGION_DIRTY_BYTES, RMEM_A_REGION_WRITEBACK_BYTES,
          RMEM_A_REGION_FETCHED_BYTES, RMEM_A_REGION_PUSHED_BYTES, RMEM_A_REGION_FAULTS_DEMAND,
          RMEM_A_REGION_FAULTS_RESIDENT, RMEM_A_REGION_FAULTS_WRITE_PROTECT, RMEM_A_REGION_ERRORS,
          RMEM_A_REGION_LOST_BYTES, RMEM_A_REGION_MODULE_BYTES, RMEM_A_REGION_PUSH_THRESHOLD})
      of[type].type = NLA_U64;
  }
};

// Of what libnl has cut out of the socket's bytes.
std::optional<RegionMessage> decode(nl_msg* message) {
  const nlmsghdr* header = nlmsg_hdr(message);
  return decode_region({reinterpret_cast<const std::byte*>(header), header->nlmsg_len});
}

// What the callbacks of one exchange share.
struct Exchange {
  std::vector<RegionInfo>* answer;
  bool finished = false;
  int err = 0;
  bool interrupted = false;
};

int on_valid(nl_msg* message, void* context) {
  auto& x = *static_cast<Exchange*>(context);
  if (nlmsg_hdr(message)->nlmsg_flags & NLM_F_DUMP_INTR) x.interrupted = true;
  if (auto told = decode(message)) x.answer->push_back(std::move(told->region));
  return NL_OK;
}

int on_finish(nl_msg*, void* context) {
  static_cast<Exchange*>(context)->finished = true;
  return NL_STOP;
}

// libnl folds errnos into its own codes; this keeps the kernel's.
int on_error(sockaddr_nl*, nlmsgerr* error, void* context) {
  auto& x = *static_cast<Exchange*>(context);
  x.err = -error->error;
  x.finished = true;
  return NL_STOP;
}

int accept_any(nl_msg*, void*) { return NL_OK; }

int on_event(nl_msg* message, void* context) {
  auto& events = *static_cast<std::vector<Event>*>(context);
  auto told = decode(message);
  if (told && told->command == RMEM_CMD_REGION_EVENT)
    events.push_back({told->event, std::move(told->region)});
  return NL_OK;
}

struct CallbackPut {
  void operator()(nl_cb* callbacks) const { nl_cb_put(callbacks); }
};
using Callbacks = std::unique_ptr<nl_cb, CallbackPut>;

}  // namespace

std::optional<RegionMessage> decode_region(std::span<const std::byte> message) {
  static const Policy policy;
  // libnl wants to be able to write there.
  auto* header = reinterpret_cast<nlmsghdr*>(const_cast<std::byte*>(message.data()));
  if (message.size() > INT_MAX || !nlmsg_ok(header, static_cast<int>(message.size())))
    return std::nullopt;
  nlattr* attributes[RMEM_A_REGION_MAX + 1];
  if (genlmsg_parse(header, 0, attributes, RMEM_A_REGION_MAX, policy.of) != 0) return std::nullopt;
  RegionMessage told;
  told.command = static_cast<genlmsghdr*>(nlmsg_data(header))->cmd;
  if (attributes[RMEM_A_REGION_EVENT]) told.event = nla_get_u32(attributes[RMEM_A_REGION_EVENT]);
  told.region = parse_region(attributes);
  return told;
}

const char* state_name(std::uint32_t state) {
  static constexpr const char* kNames[] = {"active", "degraded", "quiesced", "failed"};
  return state < std::size(kNames) ? kNames[state] : "unknown";
}

const char* on_loss_name(std::uint32_t on_loss) {
  static constexpr const char* kNames[] = {"wait", "error", "kill"};
  return on_loss < std::size(kNames) ? kNames[on_loss] : "unknown";
}

const char* event_name(std::uint32_t kind) {
  static constexpr const char* kNames[] = {"unknown", "new", "del", "state", "timeout"};
  return kind < std::size(kNames) ? kNames[kind] : "unknown";
}

void Netlink::SocketCloser::operator()(nl_sock* socket) const { nl_socket_free(socket); }

void Netlink::MessageFree::operator()(nl_msg* message) const { nlmsg_free(message); }

Netlink::~Netlink() = default;

Result<std::unique_ptr<Netlink>> Netlink::open() {
  std::unique_ptr<Netlink> netlink(new Netlink());
  netlink->socket_.reset(nl_socket_alloc());
  if (!netlink->socket_) return Status::from_errno(ENOMEM, "netlink socket");
  if (const int r = genl_connect(netlink->socket_.get()); r < 0) {
    return Status(Code::kFailed, std::string("generic netlink: ") + nl_geterror(r));
  }
  nl_socket_set_buffer_size(netlink->socket_.get(), 1 << 20, 0);
  const int family = genl_ctrl_resolve(netlink->socket_.get(), RMEM_FAMILY_NAME);
  if (family < 0) return module_absent("no netlink family " RMEM_FAMILY_NAME);
  netlink->family_ = family;
  return netlink;
}

Result<unsigned> Netlink::family_version() {
  const auto netlink = open();
  if (!netlink.ok()) return netlink.status();
  nl_cache* all = nullptr;
  if (const int r = genl_ctrl_alloc_cache((*netlink)->socket_.get(), &all); r < 0) {
    return Status(Code::kFailed, std::string("generic netlink: ") + nl_geterror(r));
  }
  genl_family* family = genl_ctrl_search_by_name(all, RMEM_FAMILY_NAME);
  const unsigned version = family ? genl_family_get_version(family) : 0;
  if (family) genl_family_put(family);
  nl_cache_free(all);
  return version;
}

Netlink::Message Netlink::message(std::uint8_t command, int flags) const {
  // Room for source and blob at their longest and the small attributes.
  Message m(nlmsg_alloc_size(RMEM_SOURCE_MAX + RMEM_BLOB_MAX + 4096));
  if (m) genlmsg_put(m.get(), 0, 0, family_, 0, flags, command, RMEM_FAMILY_VERSION);
  return m;
}

int Netlink::exchange(nl_msg* request, std::vector<RegionInfo>& answer) {
  // A dump that a change interrupted is inconsistent: begin again, not for ever.
  for (int attempt = 0; attempt < 8; ++attempt) {
    Exchange x{&answer};
    Callbacks callbacks(nl_cb_alloc(NL_CB_DEFAULT));
    if (!callbacks) return ENOMEM;
    nl_cb_set(callbacks.get(), NL_CB_VALID, NL_CB_CUSTOM, on_valid, &x);
    nl_cb_set(callbacks.get(), NL_CB_FINISH, NL_CB_CUSTOM, on_finish, &x);
    nl_cb_set(callbacks.get(), NL_CB_ACK, NL_CB_CUSTOM, on_finish, &x);
    nl_cb_err(callbacks.get(), NL_CB_CUSTOM, on_error, &x);

    answer.clear();
    // Let libnl choose a new sequence number for a repetition.
    nlmsg_hdr(request)->nlmsg_seq = NL_AUTO_SEQ;
    if (nl_send_auto(socket_.get(), request) < 0) return EIO;
    while (!x.finished) {
      const int r = nl_recvmsgs(socket_.get(), callbacks.get());
      if (r == -NLE_DUMP_INTR) {
        x.interrupted = true;
        continue;
      }
      if (r < 0 && !x.finished) return EIO;
    }
    if (x.err != 0 || !x.interrupted) return x.err;
  }
  return 0;  // a list that changed while we looked: still a list
}

Result<std::vector<RegionInfo>> Netlink::list() {
  Message m = message(RMEM_CMD_REGION_GET, NLM_F_DUMP);
  std::vector<RegionInfo> regions;
  if (!m) return Status::from_errno(ENOMEM, "netlink");
  if (const int err = exchange(m.get(), regions)) return module_error(err, "listing regions");
  std::sort(regions.begin(), regions.end(),
            [](const RegionInfo& a, const RegionInfo& b) { return a.name < b.name; });
  return regions;
}

Result<RegionInfo> Netlink::get(const std::string& name) {
  Message m = message(RMEM_CMD_REGION_GET, NLM_F_ACK);
  if (!m || nla_put_string(m.get(), RMEM_A_REGION_NAME, name.c_str()) < 0) {
    return Status::from_errno(ENOMEM, "netlink");
  }
  std::vector<RegionInfo> regions;
  if (const int err = exchange(m.get(), regions)) return module_error(err, "region " + name);
  if (regions.empty()) return module_error(ENOENT, "region " + name);
  return std::move(regions.front());
}

Result<Netlink::Made> Netlink::make(int control_fd, const RegionInfo& wanted) {
  Message m = message(RMEM_CMD_REGION_NEW, NLM_F_ACK);
  if (!m) return Status::from_errno(ENOMEM, "netlink");
  nl_msg* out = m.get();
  int bad = 0;
  bad |= nla_put_u32(out, RMEM_A_REGION_CONTROL_FD, static_cast<std::uint32_t>(control_fd));
  bad |= nla_put_string(out, RMEM_A_REGION_NAME, wanted.name.c_str());
  bad |= nla_put_u64(out, RMEM_A_REGION_SIZE, wanted.size);
  bad |= nla_put_u32(out, RMEM_A_REGION_CHUNK, wanted.chunk);
  bad |= nla_put_u8(out, RMEM_A_REGION_FOLIO_ORDER, wanted.folio_order);
  bad |= nla_put_u32(out, RMEM_A_REGION_FLAGS, wanted.flags);
  bad |= nla_put_u32(out, RMEM_A_REGION_UID, wanted.uid);
  bad |= nla_put_u32(out, RMEM_A_REGION_GID, wanted.gid);
  bad |= nla_put_u32(out, RMEM_A_REGION_MODE, wanted.mode);
  bad |= nla_put_u32(out, RMEM_A_REGION_FAULT_TIMEOUT_MS, wanted.fault_timeout_ms);
  bad |= nla_put_u32(out, RMEM_A_REGION_SYNC_TIMEOUT_MS, wanted.sync_timeout_ms);
  bad |= nla_put_u32(out, RMEM_A_REGION_ON_LOSS, wanted.on_loss);
  bad |= nla_put_u64(out, RMEM_A_REGION_RESIDENT_LIMIT, wanted.resident_limit);
  bad |= nla_put_u64(out, RMEM_A_REGION_DIRTY_LIMIT, wanted.dirty_limit);
  bad |= nla_put_u64(out, RMEM_A_REGION_PUSH_THRESHOLD, wanted.push_threshold);
  bad |= nla_put_string(out, RMEM_A_REGION_SOURCE, wanted.source.c_str());
  bad |= nla_put_string(out, RMEM_A_REGION_INSTANCE, wanted.instance.c_str());
  bad |= nla_put(out, RMEM_A_REGION_BLOB, static_cast<int>(wanted.blob.size()), wanted.blob.data());
  if (bad) return Status(Code::kUsage, "region " + wanted.name + ": its options are too long");

  std::vector<RegionInfo> regions;
  if (const int err = exchange(out, regions)) {
    return module_error(err, "making region " + wanted.name);
  }
  if (regions.empty()) {
    return Status(Code::kFailed, "making region " + wanted.name + ": the module gave no id");
  }
  return Made{regions.front().id, regions.front().writer};
}

Status Netlink::set_blob(int control_fd, std::uint32_t id, const std::string& blob) {
  Message m = message(RMEM_CMD_REGION_SET, NLM_F_ACK);
  if (!m) return Status::from_errno(ENOMEM, "netlink");
  int bad = 0;
  bad |= nla_put_u32(m.get(), RMEM_A_REGION_CONTROL_FD, static_cast<std::uint32_t>(control_fd));
  bad |= nla_put_u32(m.get(), RMEM_A_REGION_ID, id);
  bad |= nla_put(m.get(), RMEM_A_REGION_BLOB, static_cast<int>(blob.size()), blob.data());
  if (bad) return Status(Code::kUsage, "the region's options are too long");
  std::vector<RegionInfo> none;
  const int err = exchange(m.get(), none);
  return err == 0 ? Status() : module_error(err, "keeping the region's options");
}

Netlink::Message Netlink::command(std::uint8_t command, int control_fd, std::uint32_t id) const {
  Message m = message(command, NLM_F_ACK);
  if (!m) return nullptr;
  int bad = 0;
  bad |= nla_put_u32(m.get(), RMEM_A_REGION_CONTROL_FD, static_cast<std::uint32_t>(control_fd));
  bad |= nla_put_u32(m.get(), RMEM_A_REGION_ID, id);
  return bad ? nullptr : std::move(m);
}

Status Netlink::unmake(int control_fd, std::uint32_t id) {
  const Message m = command(RMEM_CMD_REGION_DEL, control_fd, id);
  if (!m) return Status::from_errno(ENOMEM, "netlink");
  std::vector<RegionInfo> none;
  const int err = exchange(m.get(), none);
  return err == 0 ? Status() : module_error(err, "unmaking the region");
}

Result<std::uint64_t> Netlink::unmake_by_force(int control_fd, std::uint32_t id) {
  const Message m = command(RMEM_CMD_REGION_DEL, control_fd, id);
  if (!m || nla_put_flag(m.get(), RMEM_A_REGION_FORCE) < 0) {
    return Status::from_errno(ENOMEM, "netlink");
  }
  std::vector<RegionInfo> answer;
  if (const int err = exchange(m.get(), answer)) {
    return module_error(err, "unmaking the region by force");
  }
  return answer.empty() ? 0 : answer.front().lost_bytes;
}

Status Netlink::abort(int control_fd, std::uint32_t id) {
  const Message m = command(RMEM_CMD_REGION_ABORT, control_fd, id);
  if (!m) return Status::from_errno(ENOMEM, "netlink");
  std::vector<RegionInfo> none;
  const int err = exchange(m.get(), none);
  return err == 0 ? Status() : module_error(err, "ending the waits");
}

EventStream::EventStream(std::unique_ptr<Netlink> netlink) : netlink_(std::move(netlink)) {}
EventStream::~EventStream() = default;

Result<std::unique_ptr<EventStream>> EventStream::open() {
  auto netlink = Netlink::open();
  if (!netlink.ok()) return netlink.status();
  nl_sock* socket = (*netlink)->socket_.get();
  const int group = genl_ctrl_resolve_grp(socket, RMEM_FAMILY_NAME, RMEM_MCGRP_EVENTS);
  if (group < 0) return module_absent("no netlink group " RMEM_MCGRP_EVENTS);
  if (const int r = nl_socket_add_membership(socket, group); r < 0) {
    if (r == -NLE_PERM) {
      return Status(Code::kPermission, "listening to events: not permitted",
                    "run as root or with CAP_NET_ADMIN", EPERM);
    }
    return Status(Code::kFailed, std::string("listening to events: ") + nl_geterror(r));
  }
  nl_socket_set_nonblocking(socket);
  return std::unique_ptr<EventStream>(new EventStream(std::move(*netlink)));
}

int EventStream::fd() const { return nl_socket_get_fd(netlink_->socket_.get()); }

Result<EventStream::Batch> EventStream::take() {
  Batch batch;
  Callbacks callbacks(nl_cb_alloc(NL_CB_DEFAULT));
  if (!callbacks) return Status::from_errno(ENOMEM, "netlink");
  nl_cb_set(callbacks.get(), NL_CB_VALID, NL_CB_CUSTOM, on_event, &batch.events);
  // Events answer no request, so they carry no number of ours.
  nl_cb_set(callbacks.get(), NL_CB_SEQ_CHECK, NL_CB_CUSTOM, accept_any, nullptr);
  const int r = nl_recvmsgs(netlink_->socket_.get(), callbacks.get());
  if (r == -NLE_NOMEM) {  // ENOBUFS: the socket's buffer ran over
    batch.lost = true;
  } else if (r < 0 && r != -NLE_AGAIN && r != -NLE_INTR) {
    return Status(Code::kFailed, std::string("events: ") + nl_geterror(r));
  }
  return batch;
}

}  // namespace rmem::kchan
