#!/bin/bash
# SPDX-License-Identifier: MIT
# timeout: 180, long 1800
#
# Sixty-four threads touch pages of one region at random, reading and writing,
# while its pages are dropped under them: each access is served and sees what it
# has to see.
. "$(dirname "$0")/lib.sh"

seconds=$(long_or 600 8)
rmem-load make "$work/file" $((16 << 20)) 0
hosts_up
start_server "r=file://$work/file"
start_rmemd
attach r --chunk 16KiB --fault-timeout 120s --sync-timeout 120s
start load rmem-load run /dev/rmem-r "$work/oracle" 1 64
end=$((SECONDS + seconds)) before=0
while ((SECONDS < end)); do
	sleep 2
	assert_exit 0 rmemctl drop r
	alive load || fail "the load ended: $(<"$work/load.log")"
	wait_for at_least $((before + 1)) rmem-load progress "$work/oracle"
	before=$(rmem-load progress "$work/oracle")
done
stop load
assert_eq 0 "$status" "status of the load"
note "$(tail -n 1 "$work/load.log"); $(region r demand) demand faults"
assert_ge "$(region r demand)" 64 "demand faults"
assert_eq 0 "$(region r waiting)" "who still waits"
assert_eq 0 "$(region r errors)" "errors"
assert_exit 0 rmemctl sync r
assert_exit 0 rmem-load compare "$work/file" "$work/oracle" exact
assert_exit 0 rmemctl detach r
