#!/bin/bash
# SPDX-License-Identifier: MIT
# timeout: 300
#
# What was written goes from the page cache straight into the daemon's socket, by TCP
# over IPv4 and IPv6 and by a unix socket: the module counts what it has sent. The
# server has the right bytes, also when it, the daemon or a connection dies in the
# middle; zeros stay holes; what is short, or has a checksum, goes by copy.
. "$(dirname "$0")/lib.sh"

# Bytes that the module has sent for a region.
sent() {
	sed -n "s/^$1 id=.* sent=\([0-9]*\).*/\1/p" /sys/kernel/debug/rmem/regions
}

size=$((4 << 20 | 1234))
names=(v4 v6 unix small summed)
for name in "${names[@]}"; do
	rmem-load make "$work/$name" $size 0
done

# Both on one host: there is a loopback interface, and an address that is none of its.
hosts_up
serve() {
	local args
	mapfile -t args < <(for name in "${names[@]}"; do export_args "$name=file://$work/$name"; done)
	in_cli start server rmem-server --insecure --state-dir "$work/state" --listen tcp://127.0.0.1:7070 \
		--listen "tcp://[::1]:7071" --listen "tcp://$CLI4:7072" --listen "unix://$work/server.sock" \
		"${args[@]}"
}
serve
start_rmemd

common=(--push-interval 300s --sync-timeout 120s --fault-timeout 120s)
assert_exit 0 rmemctl attach v4 rmem://127.0.0.1/v4 "${common[@]}"
assert_exit 0 rmemctl attach v6 "rmem://[::1]:7071/v6" --chunk 64KiB "${common[@]}"
assert_exit 0 rmemctl attach unix "rmem+unix:///unix?socket=$work/server.sock" --chunk 2MiB "${common[@]}"
assert_exit 0 rmemctl attach small rmem://127.0.0.1/small --chunk 8KiB "${common[@]}"
assert_exit 0 rmemctl attach summed "rmem://$CLI4:7072/summed" --insecure "${common[@]}"

for name in "${names[@]}"; do
	assert_exit 0 rmem-load rewrite /dev/rmem-$name 1
	assert_exit 0 rmemctl sync $name
	assert_clean $name
	assert_exit 0 rmem-load check "$work/$name" 1
	note "$name: $(sent $name) bytes sent"
done
for name in v4 v6 unix; do
	# All of it, but for what the kernel found worth pushing before it was written.
	assert_ge "$(sent $name)" $((size / 2)) "sent of $name"
done
for name in small summed; do
	assert_eq 0 "$(sent $name)" "sent of $name"
done

# Nobody sends zeros.
before=$(sent v4)
dd if=/dev/zero of=/dev/rmem-v4 bs=1M count=4 conv=notrunc status=none
assert_exit 0 rmemctl sync v4
assert_eq "$before" "$(sent v4)" "sent of zeros"
assert_le $(($(stat -c %b "$work/v4") * 512)) $((1 << 20)) "bytes of the file that are not holes"
cmp -n $((4 << 20)) "$work/v4" /dev/zero

# In the middle of it all: the server, the daemon, a connection.
seq=1
for middle in server rmemd connection rmemd; do
	((++seq))
	for name in v6 unix; do
		assert_exit 0 rmem-load rewrite /dev/rmem-$name $seq
	done
	before=$(sent v6)
	rmemctl sync v6 & syncs=($!)
	rmemctl sync unix & syncs+=($!)
	wait_for at_least $((before + 1)) sent v6
	case $middle in
	server) stop server KILL && serve ;;
	rmemd) stop rmemd KILL && start_rmemd ;;
	connection) in_cli ss -tK state established >/dev/null ;;
	esac
	# Of a daemon that has died they tell no more than that.
	for pid in "${syncs[@]}"; do
		wait "$pid" || [[ $middle == rmemd ]] || fail "sync failed"
	done
	for name in v6 unix; do
		assert_exit 0 rmemctl sync $name
		assert_clean $name
		assert_eq 0 "$(region $name errors)" "errors of $name"
		assert_exit 0 rmem-load check "$work/$name" $seq
	done
done
for name in "${names[@]}"; do
	assert_exit 0 rmemctl detach $name
done
