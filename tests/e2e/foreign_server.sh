#!/bin/bash
# SPDX-License-Identifier: MIT
#
# At the other end is something else: HTTP, noise, nobody who speaks, a server
# of another version, one whose answer is for somebody else. Attach says so;
# rmemd lives on and serves the others.
. "$(dirname "$0")/lib.sh"

cat >"$work/listen.py" <<'PYTHON'
import os, socket, struct, sys

def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff

def frame(type, flags, request, generation, payload=b"", error=0, version=1):
    head = struct.pack("<4sBBHQIIQQIIQI", b"rmem", version, type, flags, request, 0, generation,
                       0, 0, len(payload), 0, 0, error)
    return head + struct.pack("<I", crc32c(head)) + payload

def hello(client):
    head = client.recv(64, socket.MSG_WAITALL)
    client.recv(struct.unpack_from("<I", head, 40)[0], socket.MSG_WAITALL)
    return struct.unpack_from("<Q", head, 8)[0], struct.unpack_from("<I", head, 20)[0]

mode, address = sys.argv[1:]
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((address, 7070))
listener.listen()
print("ready", flush=True)
while True:
    client, _ = listener.accept()
    try:
        if mode == "http":
            client.recv(65536)
            client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        elif mode == "noise":
            client.sendall(os.urandom(4096))
        elif mode == "closes":
            pass
        elif mode == "version":
            request, generation = hello(client)
            client.sendall(frame(11, 0, request, generation, b"this server speaks versions 7 to 9", 93))
        elif mode == "version-unasked":
            request, generation = hello(client)
            body = struct.pack("<HHHBBQIIII16s", 7, 9, 7, 0, 0, 0, 4 << 20, 256, 0, 0, bytes(16))
            client.sendall(frame(1, 1, request, generation, body))
        elif mode == "misdirected":
            request, generation = hello(client)
            body = struct.pack("<HHHBBQIIII16s", 1, 1, 1, 0, 0, 0, 4 << 20, 256, 0, 0, bytes(16))
            client.sendall(frame(1, 1, request + 1, generation + 1, body))
        elif mode == "silent":
            client.settimeout(60)
            while client.recv(65536):
                pass
    except OSError:
        pass
    client.close()
PYTHON

hosts_up
in_srv start server2 rmem-server --listen "tcp://$SRV4:7072" --insecure --export good=mem://64KiB
start_rmemd
assert_exit 0 rmemctl attach good "rmem://$SRV4:7072/good" --insecure

meet() { # MODE CODE REGEX
	in_srv start foreign /usr/bin/python3 "$work/listen.py" "$1" "$SRV4"
	assert_error "$2" "$3" rmemctl attach r "rmem://$SRV4/e" --insecure
	assert_match "$SRV4" "$err" "stderr"
	note "$1: $err"
	stop foreign
}
meet http 1 "protocol|rmem"
meet noise 1 "protocol|rmem"
meet version 1 "version"
meet version-unasked 1 "protocol|version"
meet misdirected 1 "protocol|rmem|answer"
meet closes 1 "closed the connection"
meet silent 7 ""

# And rmemd to a server that is none of ours: rmem-server is not impressed.
assert_exit 0 in_cli /usr/bin/python3 - "$SRV4" <<'PYTHON'
import os, socket, sys
for bytes in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", os.urandom(300), b"rmem" + bytes(60)):
    s = socket.create_connection((sys.argv[1], 7072))
    s.settimeout(30)
    s.sendall(bytes)
    try:
        while s.recv(4096):
            pass
    except ConnectionResetError:  # it hung up on bytes it had not read
        pass
PYTHON

assert_exit 0 rmem-load poke /dev/rmem-good 4096 5 fsync
assert_eq 0x5 "$(rmem-load peek /dev/rmem-good 4096)" "the other region"
assert_exit 0 rmemctl status
assert_eq 2 "$(wc -l <<<"$out")" "lines of status"
