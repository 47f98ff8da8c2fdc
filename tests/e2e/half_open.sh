#!/bin/bash
# SPDX-License-Identifier: MIT
# timeout: 300, long 600
#
# Thousands of connections that begin and never shake hands, from one address: silent ones, some that
# speak something else, some that stop in the middle of a first record. Who is served goes on, who comes is
# served, the server's memory stays bounded, and its log does not fill.
. "$(dirname "$0")/lib.sh"

count=$(long_or 10000 2500) size=$((1 << 20))
rmem-load make "$work/file" $size 7
certificates
start server rmem-server --state-dir "$work/state" --listen tls://127.0.0.1:7070 \
	--export "file=file://$work/file" --tls-certificates "$tls" --allow file=authenticated
start_rmemd --tls-certificates "$tls"
assert_exit 0 rmemctl attach file rmems://localhost/file --chunk 64KiB

resident() { awk '$1 == "VmRSS:" { print $2 }' "/proc/${pids[server]}/status"; }
descriptors() { find "/proc/${pids[server]}/fd" -mindepth 1 | wc -l; }
before=$(resident)
: >"$work/server.log"
began=$SECONDS

cat >"$work/crowd.py" <<'PYTHON'
import resource, socket, sys, time
count = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, count + 100))
crowd = []
print("ready", flush=True)
for i in range(count):
    one = socket.create_connection(("127.0.0.1", 7070))
    words = (b"", b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x02\x00\x01")[i % 3]
    try:
        one.sendall(words)
    except OSError:
        pass  # it has been dropped by now
    crowd.append(one)
    if i % 100 == 99:
        time.sleep(0.01)
print("all", flush=True)
time.sleep(600)
PYTHON
start crowd /usr/bin/python3 "$work/crowd.py" "$count"
for at in 0 5 11; do assert_exit 0 rmem-load peek /dev/rmem-file $((at << 16)); done
wait_for -t 200 grep -q all "$work/crowd.log"
note "$count: the server takes $(resident) KiB, before $before, and has $(descriptors) descriptors"
assert_le "$(resident)" $((before + (48 << 10))) "KiB of memory"
assert_le "$(descriptors)" 400 "descriptors"
# Of refusals twenty, and how many more, in ten seconds; and of those that are served.
assert_le "$(wc -l <"$work/server.log")" $((21 * ((SECONDS - began) / 10 + 2) + 10)) "lines of its log"

assert_exit 0 rmemctl attach other rmems://localhost/file --read-only
cmp "$work/file" /run/rmem/regions/other
cmp "$work/file" /run/rmem/regions/file
assert_eq 0 "$(region file errors)" errors
stop crowd
assert_exit 0 rmemctl detach other
assert_exit 0 rmemctl detach file
