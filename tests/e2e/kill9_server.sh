#!/bin/bash
# SPDX-License-Identifier: MIT
# timeout: 300, long 1800
#
# rmem-server is killed again and again, at random moments, under a random load by
# processes and threads that know what each page has to hold, and started again
# at the same address. Nothing synced is lost, nothing is torn or zero, the load
# never notices.
. "$(dirname "$0")/lib.sh"

rounds=$(long_or 100 12) ms=0
rmem-load make "$work/file" $((4 << 20)) 0
hosts_up
start_server "r=file://$work/file"
start_rmemd
attach r --chunk 64KiB --push-interval 300ms --sync-timeout 120s --fault-timeout 120s
start load rmem-load run /dev/rmem-r "$work/oracle" 2 3

for ((round = 1; round <= rounds; round++)); do
	random ms 700
	sleep "$(printf '0.%03d' "$ms")" # the moment is what is random here
	stop server KILL
	assert_exit 0 rmem-load compare "$work/file" "$work/oracle"
	if ((round % 5 == 0)); then
		note "round $round: killed after $ms ms; $out"
		wait_for region_is r state degraded
	fi
	start_server "r=file://$work/file"
	before=$(rmem-load progress "$work/oracle")
	wait_for at_least $((before + 20)) rmem-load progress "$work/oracle"
	alive load || fail "the load ended: $(<"$work/load.log")"
done
wait_for region_is r state active

stop load
assert_eq 0 "$status" "status of the load"
assert_exit 0 rmemctl sync r
assert_clean r
assert_eq 0 "$(region r errors)" "errors"
assert_exit 0 rmem-load compare "$work/file" "$work/oracle" exact
assert_exit 0 rmemctl drop r
assert_exit 0 rmem-load compare /dev/rmem-r "$work/oracle" exact
note "$(tail -n 1 "$work/load.log"); $out"
assert_exit 0 rmemctl detach r
