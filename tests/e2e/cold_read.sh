#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Every byte of a file and of memory on the other host is read right, cold and
# then warm, by IPv4, IPv6 and a unix socket, several regions at once, through
# each of the three frontends.
. "$(dirname "$0")/lib.sh"

size=2097275 # ends within a page
rmem-load make "$work/file" $size 7

hosts_up
in_srv start server rmem-server --insecure --state-dir "$work/state" \
	--listen "tcp://$SRV4:7070" --listen "tcp://[$SRV6]:7071" --listen "unix://$work/server.sock" \
	--export "file=file://$work/file" --export mem=mem://2MiB
start_rmemd

attach mem
assert_exit 0 rmem-load write /dev/rmem-mem 9
assert_exit 0 rmemctl sync mem
assert_exit 0 rmemctl drop mem
assert_eq 0 "$(region mem resident_bytes)" "what stays resident after drop"

attach file --read-only --chunk 64KiB
assert_exit 0 rmemctl attach v6 "rmem://[$SRV6]:7071/file" --insecure --read-only
assert_exit 0 rmemctl attach unix "rmem+unix:///file?socket=$work/server.sock" --read-only --chunk 4KiB

# All at once.
readers=()
rmem-load read /dev/rmem-file 7 & readers+=($!)
rmem-load read v6@/dev/rmem 7 2 & readers+=($!)
rmem-load check /run/rmem/regions/unix 7 & readers+=($!)
rmem-load read mem@/dev/rmem 9 & readers+=($!)
for pid in "${readers[@]}"; do
	wait "$pid" || fail "a reader failed"
done

# Each byte was fetched once: what is beyond the end of the file never was.
for name in file v6 unix; do
	assert_eq $size "$(region $name size_bytes)" "size of $name"
	assert_eq $size "$(stat -c %s /run/rmem/regions/$name)" "size of the file of $name"
	fetched=$(region $name fetched_bytes)
	assert_ge "$fetched" $size "fetched bytes of $name"
	assert_le "$fetched" $((size + 4095)) "fetched bytes of $name"
done
assert_eq 64 "$(region mem chunk_bytes | awk '{ print $1 / 4096 }')" "pages of a chunk by default"

# Warm: not a byte more.
before=$(region file fetched_bytes)
assert_exit 0 rmem-load check /dev/rmem-file 7
assert_exit 0 rmem-load read /run/rmem/regions/file 7 2
assert_eq "$before" "$(region file fetched_bytes)" "fetched bytes after reading again"
cmp "$work/file" /run/rmem/regions/v6
