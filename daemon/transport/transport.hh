// SPDX-License-Identifier: MIT
// A connection that carries bytes in order, completely or not at all. Knows no
// message.
#pragma once

#include <sys/uio.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.hh"

namespace rmem::transport {

// A round trip from which on a connection is worth what only a distance needs. Nearer than that
// it is no more than what the work takes.
inline constexpr std::chrono::microseconds kDistant{1000};

// What a transfer did. bytes > 0: so many were moved. Otherwise `err` is a
// positive errno (EAGAIN: wait for the event), or 0: the peer has closed its
// side (receive only).
struct IoResult {
  std::size_t bytes = 0;
  int err = 0;
  bool closed() const { return bytes == 0 && err == 0; }
};

// How many bytes the buffers have room for.
inline std::size_t total(std::span<const iovec> buffers) {
  std::size_t bytes = 0;
  for (const iovec& buffer : buffers) bytes += buffer.iov_len;
  return bytes;
}

// One end of a connection; it closes with its destruction, bytes that were
// accepted by send() still go out. Not thread-safe: everything happens on the
// reactor's thread. Never blocks, never raises SIGPIPE.
class Connection {
 public:
  // Level-triggered: called again in each turn of the loop for as long as the
  // condition lasts and is watched. A call may destroy the connection.
  class Handler {
   public:
    // receive() would not say EAGAIN, or there is a message.
    virtual void on_readable() = 0;
    // send() would not say EAGAIN.
    virtual void on_writable() = 0;
    // The connection is dead, or its end is watched and has come, and reading is not
    // being watched; where it is, receive() tells.
    virtual void on_hangup() = 0;

   protected:
    ~Handler() = default;
  };

  virtual ~Connection() = default;

  // Once, first. Not owned; must outlive the connection.
  virtual void attach(Handler& handler) = 0;
  // What to report. Nothing at first.
  virtual void watch(bool readable, bool writable) = 0;
  // Where somebody else reads: report when the peer will send no more.
  virtual void watch_end(bool /*writable*/) {}

  // Fill or send the buffers in order; a short count is no error. At least one
  // buffer of at least one byte.
  virtual IoResult receive(std::span<const iovec> buffers) = 0;
  // `more` follows at once: what is sent now may wait for it.
  virtual IoResult send(std::span<const iovec> buffers, bool more = false) = 0;

  // Unordered delivery, as SCTP calls it: short messages beside the stream, and in front of what
  // of that has not been sent yet. Each arrives whole, as soon as all of it is there, whatever
  // else is still missing. Whether there is such a thing:
  virtual bool unordered() const { return false; }
  // Takes all of the message (0) or nothing: EAGAIN, or another positive errno. EMSGSIZE, of one
  // that is too long or one too many: it may go by send().
  virtual int send_message(std::span<const iovec> /*message*/) { return EOPNOTSUPP; }
  // The one that has arrived first, into `message`. False: there is none.
  virtual bool receive_message(std::vector<std::byte>& /*message*/) { return false; }

  // It carries much that nobody waits for, beside another connection to the same host that
  // does not: it shall fill the way there and leave the queues on it short. To be called
  // again now and then, as the way may have become a longer one.
  virtual void carry_bulk() {}
  // Whether bulk on it is slowed down by each packet that is lost on a long way, so that several
  // connections share it better. As of the last carry_bulk().
  virtual bool backs_off() const { return false; }

  // The least of late (minutes), so without what queues and busy hosts add; 0: not known.
  virtual std::chrono::microseconds round_trip() const { return {}; }

  // The socket whose stream is that of the connection, byte by byte, so that
  // others may receive from it or send to it; -1: there is none.
  virtual int socket() const { return -1; }
  // Whether that is so in its plainest form, with nothing but the kernel's transport below.
  virtual bool bare() const { return socket() >= 0; }
  // Whether the bytes arrive as they were sent or not at all, since they are encrypted or
  // never leave this host (loopback, unix socket): no need for checksums.
  virtual bool intact() const = 0;
  // Whether the peer is on this host.
  virtual bool local() const = 0;
  // "tcp", "unix", "tls" (in user space), "ktls" (by the kernel), "quic", "pair".
  virtual const char* kind() const = 0;
  // For logs: "192.0.2.1:4711", "unix socket".
  virtual const std::string& peer() const = 0;
  // Who the peer has proved to be, under every name that was vouched for, each with its kind:
  // "cn:alice", "dns:host.example", "email:a@b.example", "uri:...", "dn:CN=alice,O=Example" of
  // a certificate, "psk:alice" of a shared key. Empty: nobody has asked.
  virtual const std::vector<std::string>& identities() const {
    static const std::vector<std::string> none;
    return none;
  }
  // Why receive() or send() has failed, where more is known than their errno says.
  virtual Status failure() const { return Status(); }
  // Whether its keys have served for about as much as they may: time for another one.
  virtual bool worn() const { return false; }
  // What encrypting and decrypting in user space has taken so far.
  virtual std::chrono::nanoseconds crypto_time() const { return {}; }
};

// Waits for connections.
class Listener {
 public:
  class Handler {
   public:
    virtual void on_accept(std::unique_ptr<Connection> connection) = 0;

   protected:
    ~Handler() = default;
  };
  virtual ~Listener() = default;
};

}  // namespace rmem::transport
