#!/bin/bash
# SPDX-License-Identifier: MIT
# timeout: 400, long 7200
#
# Attach, use, detach, a thousand times: nothing is left in the kernel's slabs,
# in either daemon's descriptors and memory, among mounts, nodes and devices.
# Then the module goes and comes back, two hundred times, with the same result.
. "$(dirname "$0")/lib.sh"
. "$tests/e2e/growth.sh"

attaches=$(long_or 1000 30) loads=$(long_or 200 5)
module=$(modinfo -F filename rmem 2>/dev/null || echo "$tests/../build/kmod/$(uname -r)/rmem.ko")

on_exit() {
	no_growth_ends
	[[ -d /sys/module/rmem ]] || insmod "$module"
}

rmem-load make "$work/file" $((1 << 20)) 1
hosts_up
start_server "r=file://$work/file"

# No end of a connection is left open, by the daemon or by the server.
unconnected() { [[ ! $(in_srv ss -Hnt sport = :7070)$(in_cli ss -Hnt dport = :7070) ]]; }

settle() { wait_for unconnected; }

cycle() {
	attach r --chunk 64KiB
	assert_exit 0 rmem-load poke /dev/rmem-r $((RANDOM % 128 * 8192)) 5
	assert_exit 0 rmem-load peek /run/rmem/regions/r 4096
	assert_exit 0 rmemctl detach r
}

note "attach and detach"
start_rmemd
# The first ones fill caches and pools.
for ((i = 0; i < 10; i++)); do
	cycle
done
in_halves "$attaches" cycle
stop rmemd

note "load and unload"
load() {
	rmmod rmem || fail "rmmod"
	insmod "$module" || fail "insmod"
}
for ((i = 0; i < 3; i++)); do
	load
done
loaded=0
load_and_now_and_then_use() {
	load
	# With something to take down each tenth time.
	((loaded++ % 10)) && return
	start_rmemd
	cycle
	stop rmemd
}
in_halves "$loads" load_and_now_and_then_use
