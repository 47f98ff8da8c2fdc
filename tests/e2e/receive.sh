#!/bin/bash
# SPDX-License-Identifier: MIT
# timeout: 300
#
# Payloads go from the daemon's socket straight into the page cache, by TCP over
# IPv4 and IPv6 and by a unix socket: the module counts what it has received. The
# bytes are right, also when server, daemon or connection die in the middle; what
# is too small to be worth it comes by copy.
. "$(dirname "$0")/lib.sh"

# Bytes that the module has received for a region.
received() {
	sed -n "s/^$1 id=.* received=\([0-9]*\).*/\1/p" /sys/kernel/debug/rmem/regions
}

chunk=$((256 << 10))
size=$((32 * chunk + 1234))
rmem-load make "$work/file" $size 7

hosts_up
serve() {
	in_srv start server rmem-server --insecure --state-dir "$work/state" \
		--listen "tcp://$SRV4:7070" --listen "tcp://[$SRV6]:7071" --listen "unix://$work/server.sock" \
		--export "file=file://$work/file"
}
serve
start_rmemd

attach file --read-only
assert_exit 0 rmemctl attach v6 "rmem://[$SRV6]:7071/file" --insecure --read-only --chunk 64KiB
assert_exit 0 rmemctl attach unix "rmem+unix:///file?socket=$work/server.sock" --read-only --chunk 2MiB
assert_exit 0 rmemctl attach small "rmem://$SRV4/file" --insecure --read-only --chunk 8KiB

for name in file v6 unix small; do
	assert_eq 0 "$(received $name)" "received of $name before anybody reads"
	assert_exit 0 rmem-load read /dev/rmem-$name 7
	cmp "$work/file" /run/rmem/regions/$name
done
# All but the end of the file, which is a small chunk of its own; unless whoever waited for
# that took it himself.
for name in file v6 unix; do
	got=$(received $name)
	((got == size)) || assert_eq $((size - 1234)) "$got" "received of $name"
	fetched=$(region $name fetched_bytes)
	assert_le $((size)) "$fetched" "fetched of $name"
	assert_le "$fetched" $((size + 4095)) "fetched of $name"
done
answered() { sed -n "s/^$1 id=.* answered=\([0-9]*\).*/\1/p" /sys/kernel/debug/rmem/regions; }
assert_le "$(received small)" $(($(answered small) * 8192)) "received of chunks of 8 KiB, but by those who waited"

# In the middle of it all: the server, the daemon, the cable.
for middle in server rmemd server rmemd cable; do
	assert_exit 0 rmemctl drop file
	assert_exit 0 rmemctl drop unix
	before=$(received file)
	rmem-load read /dev/rmem-file 7 & readers=($!)
	rmem-load read /dev/rmem-unix 7 & readers+=($!)
	wait_for at_least $((before + 1)) received file
	case $middle in
	server) stop server KILL && serve ;;
	rmemd) stop rmemd KILL && start_rmemd ;;
	cable) link_down && sleep 0.5 && link_up ;;
	esac
	for pid in "${readers[@]}"; do
		wait "$pid" || fail "a reader failed"
	done
	assert_eq 0 "$(region file errors)" "errors"
done
cmp "$work/file" /run/rmem/regions/file
cmp "$work/file" /run/rmem/regions/unix
