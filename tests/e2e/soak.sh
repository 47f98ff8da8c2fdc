#!/bin/bash
# SPDX-License-Identifier: MIT
# timeout: 300, long 7200
#
# One region in use for long: read, written, pushed, dropped, pulled, and its link cut
# now and then. Memory, descriptors and slabs are the same after it as before, of
# the module, of rmemd and of the server; no page is wrong.
. "$(dirname "$0")/lib.sh"
. "$tests/e2e/growth.sh"
on_exit() { no_growth_ends; }

rounds=$(long_or 1500 10) seq=0
rmem-load make "$work/file" $((4 << 20)) 0
hosts_up
start_server "r=file://$work/file"
start_rmemd
attach r --chunk 64KiB --fault-timeout 120s --sync-timeout 120s

settle() {
	wait_for at_least 2 daemon_says r lanes
	assert_exit 0 rmemctl sync r
	assert_exit 0 rmemctl drop r
}
round() {
	((++seq % 12)) || cut
	assert_exit 0 rmem-load rewrite /dev/rmem-r $seq 4
	assert_exit 0 rmemctl sync r
	assert_exit 0 rmemctl drop r
	assert_exit 0 rmemctl pull r --wait
	assert_exit 0 rmem-load check /run/rmem/regions/r $seq
	assert_exit 0 rmemctl status r --json
}
cut() {
	link_down
	wait_for region_is r state degraded
	link_up
}
for ((i = 0; i < 4; i++)); do
	round
done
in_halves "$rounds" round
assert_eq 0 "$(region r errors)" "errors"
assert_exit 0 rmem-load check "$work/file" $seq
assert_exit 0 rmemctl detach r
