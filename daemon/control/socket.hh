// SPDX-License-Identifier: MIT
// The control socket in the file system.
#pragma once

#include <string>
#include <vector>

#include "base/result.hh"
#include "base/unique_fd.hh"

namespace rmem::control {

// Who is at the other end, as the kernel tells it.
struct Peer {
  unsigned uid = 0;
  unsigned gid = 0;
  std::vector<unsigned> groups;  // supplementary
  int pid = 0;

  bool in_group(unsigned group) const;
};

// A listening socket at a path, removed when it goes.
class ControlSocket {
 public:
  // Mode 0660, group rmem; 0600 with a warning where there is no such group.
  // /run/rmem is created (0755) if it is the parent. A socket that a dead
  // daemon left behind is replaced; kBusy: a live one answers there.
  static Result<ControlSocket> listen(const std::string& path);
  ~ControlSocket();
  ControlSocket(ControlSocket&&) noexcept = default;
  ControlSocket& operator=(ControlSocket&&) noexcept = default;

  int fd() const { return fd_.get(); }
  // Who called; `connection` is an accepted socket.
  static Result<Peer> peer_of(int connection);

 private:
  ControlSocket(std::string path, UniqueFd lock, UniqueFd fd)
      : path_(std::move(path)), lock_(std::move(lock)), fd_(std::move(fd)) {}

  std::string path_;
  UniqueFd lock_;  // on PATH.lock: two daemons that start at once do not both win
  UniqueFd fd_;
};

}  // namespace rmem::control
