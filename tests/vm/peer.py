#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The other VM of run.sh --peer, as a machine that does what it is told.

peer.py serve               in the peer: runs what comes, one after the other
peer.py run COMMAND...      runs it there; output and exit status are its own
peer.py reset               resets the peer, at once: nothing is synced. What its
                            disk was not told to keep is lost
peer.py wait                until the peer answers; after a reset, until it is up
                            again

What runs on in the peer has to leave standard output and error alone.
"""
import os
import pathlib
import socket
import struct
import subprocess
import sys
import time

PEER = ("10.78.0.2", 2222)
HEAD = struct.Struct("<iQQ")  # status, bytes of stdout, bytes of stderr
BOOT_ID = "/proc/sys/kernel/random/boot_id"
LAST_RESET = pathlib.Path("/run/.rmem-peer-reset")  # boot id that was reset


def receive(sock, count):
    data = b""
    while len(data) < count:
        more = sock.recv(min(count - len(data), 1 << 20))
        if not more:
            raise ConnectionError("the peer hung up")
        data += more
    return data


def serve():
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(PEER)
    listener.listen()
    while True:
        client, _ = listener.accept()
        with client:
            try:
                (length,) = struct.unpack("<I", receive(client, 4))
                argv = receive(client, length).decode().split("\0")
            except ConnectionError:
                continue
            if argv == ["reset"]:
                # Not by a command: its program might have to be read first.
                pathlib.Path("/proc/sysrq-trigger").write_text("b")
            done = subprocess.run(argv[1:], stdin=subprocess.DEVNULL, capture_output=True,
                                  check=False)
            try:
                client.sendall(HEAD.pack(done.returncode, len(done.stdout), len(done.stderr)) +
                               done.stdout + done.stderr)
            except ConnectionError:
                pass


def call(argv, timeout=None):
    with socket.create_connection(PEER, timeout=timeout or 10) as sock:
        sock.settimeout(timeout)
        request = "\0".join(argv).encode()
        sock.sendall(struct.pack("<I", len(request)) + request)
        status, out, err = HEAD.unpack(receive(sock, HEAD.size))
        return status, receive(sock, out), receive(sock, err)


def boot_id(timeout):
    return call(["run", "cat", BOOT_ID], timeout)[1].decode()


def main(argv):
    if argv == ["serve"]:
        serve()
    elif argv[:1] == ["run"] and argv[1:]:
        status, out, err = call(argv)
        os.write(2, err) if err else None
        sys.stdout.buffer.write(out)
        return status if status >= 0 else 128 - status
    elif argv == ["reset"]:
        LAST_RESET.write_text(boot_id(60))
        try:
            call(argv, 0.5)
        except OSError:
            pass
    elif argv == ["wait"]:
        before = LAST_RESET.read_text() if LAST_RESET.exists() else ""
        end = time.monotonic() + 600 * int(os.environ.get("RMEM_TIMEOUT_SCALE", "1"))
        while time.monotonic() < end:
            try:
                if boot_id(2) != before:
                    return 0
            except OSError:
                pass
            time.sleep(0.1)
        print("peer.py: the peer does not answer", file=sys.stderr)
        return 1
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


sys.exit(main(sys.argv[1:]))
