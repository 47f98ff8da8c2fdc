// SPDX-License-Identifier: MIT
#include "fuse_mount.hh"

#define FUSE_USE_VERSION 312
#include <fuse3/fuse_lowlevel.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "link.hh"

namespace rmem::bench {
namespace {

constexpr char kName[] = "pattern";
constexpr fuse_ino_t kFile = FUSE_ROOT_ID + 1;
constexpr double kForever = 1e9;
constexpr std::size_t kMostBytes = 1 << 20;  // of one request

const FuseOptions& options_of(fuse_req_t request) {
  return *static_cast<const FuseOptions*>(fuse_req_userdata(request));
}

// The connection of the thread that calls; none if the server is gone.
Link* link_of(fuse_req_t request) {
  thread_local std::optional<Link> link;
  if (!link) {
    auto made = Link::connect(options_of(request).server);
    if (!made) return nullptr;
    link = std::move(made).value();
  }
  return &*link;
}

struct stat attributes(fuse_req_t request, fuse_ino_t inode) {
  struct stat st = {};
  st.st_ino = inode;
  st.st_mode = inode == kFile ? S_IFREG | 0600 : S_IFDIR | 0700;
  st.st_nlink = inode == kFile ? 1 : 2;
  st.st_size = inode == kFile ? static_cast<off_t>(options_of(request).size) : 0;
  return st;
}

void init(void* userdata, fuse_conn_info* connection) {
  connection->max_readahead =
      static_cast<unsigned>(static_cast<const FuseOptions*>(userdata)->readahead);
  connection->max_write = kMostBytes;
  connection->max_background = 64;
}

void lookup(fuse_req_t request, fuse_ino_t, const char* name) {
  if (std::strcmp(name, kName) != 0) {
    fuse_reply_err(request, ENOENT);
    return;
  }
  fuse_entry_param entry = {};
  entry.ino = kFile;
  entry.attr = attributes(request, kFile);
  entry.attr_timeout = entry.entry_timeout = kForever;
  fuse_reply_entry(request, &entry);
}

void getattr(fuse_req_t request, fuse_ino_t inode, fuse_file_info*) {
  const struct stat st = attributes(request, inode);
  fuse_reply_attr(request, &st, kForever);
}

// Times, with which a store changes the file.
void setattr(fuse_req_t request, fuse_ino_t inode, struct stat*, int, fuse_file_info* file) {
  getattr(request, inode, file);
}

void open(fuse_req_t request, fuse_ino_t, fuse_file_info* file) {
  file->keep_cache = 1;
  fuse_reply_open(request, file);
}

void read(fuse_req_t request, fuse_ino_t, std::size_t size, off_t offset, fuse_file_info*) {
  thread_local std::vector<std::byte> buffer;
  const auto at = static_cast<std::uint64_t>(offset);
  const std::uint64_t end = options_of(request).size;
  buffer.resize(at < end ? std::min<std::uint64_t>(size, end - at) : 0);
  Link* const link = link_of(request);
  if (link == nullptr || !link->read(at, buffer).ok())
    fuse_reply_err(request, EIO);
  else
    fuse_reply_buf(request, reinterpret_cast<const char*>(buffer.data()), buffer.size());
}

void write(fuse_req_t request, fuse_ino_t, const char* bytes, std::size_t size, off_t offset,
           fuse_file_info*) {
  Link* const link = link_of(request);
  const std::span given(reinterpret_cast<const std::byte*>(bytes), size);
  if (link == nullptr || !link->give(static_cast<std::uint64_t>(offset), given).ok() ||
      !link->acknowledged().ok())
    fuse_reply_err(request, EIO);
  else
    fuse_reply_write(request, size);
}

// What has been answered is at the server.
void fsync(fuse_req_t request, fuse_ino_t, int, fuse_file_info*) { fuse_reply_err(request, 0); }

struct Deleter {
  void operator()(fuse_session* session) const { fuse_session_destroy(session); }
  void operator()(fuse_loop_config* config) const { fuse_loop_cfg_destroy(config); }
};

}  // namespace

Status mount_fuse(const std::string& directory, const FuseOptions& options,
                  const std::function<void()>& ready) {
  fuse_lowlevel_ops operations = {};
  operations.init = init;
  operations.lookup = lookup;
  operations.getattr = getattr;
  operations.setattr = setattr;
  operations.open = open;
  operations.read = read;
  operations.write = write;
  operations.fsync = fsync;

  std::string program = "rmem-bench";
  char* arguments[] = {program.data(), nullptr};
  fuse_args args = FUSE_ARGS_INIT(1, arguments);
  FuseOptions mine = options;
  const std::unique_ptr<fuse_session, Deleter> session(
      fuse_session_new(&args, &operations, sizeof operations, &mine));
  if (!session) return Status(Code::kFailed, "FUSE: no session");
  if (fuse_set_signal_handlers(session.get()) != 0) return Status(Code::kFailed, "FUSE: signals");
  if (fuse_session_mount(session.get(), directory.c_str()) != 0)
    return Status(Code::kFailed, "FUSE: cannot mount at " + directory);
  ready();
  const std::unique_ptr<fuse_loop_config, Deleter> config(fuse_loop_cfg_create());
  fuse_loop_cfg_set_clone_fd(config.get(), 1);
  fuse_loop_cfg_set_max_threads(config.get(), options.threads);
  const int ended = fuse_session_loop_mt(session.get(), config.get());
  fuse_session_unmount(session.get());
  fuse_remove_signal_handlers(session.get());
  return ended >= 0 ? Status() : Status::from_errno(-ended, "FUSE");
}

}  // namespace rmem::bench
