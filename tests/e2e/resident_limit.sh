#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: mem=2048
# timeout: 600, long 7200
#
# A region that may have an eighth of itself in memory: written from end to end,
# read from end to end, then used at random by several processes. It stays within
# its limit all the time, says its status and says /proc/meminfo, and no page is
# wrong. 1 GiB in the long form.
. "$(dirname "$0")/lib.sh"

mib=$(long_or 1024 96)
size=$((mib << 20)) limit=$((mib << 17)) slack=$((16 << 20))
cached() { awk '$1 == "Cached:" { print $2 * 1024 }' /proc/meminfo; }
# Notes the most that was ever resident.
observe() {
	local now most=0
	while now=$(region r resident_bytes 2>/dev/null); do
		((now <= most)) || { most=$now && echo "$most" >"$work/most"; }
		sleep 0.3
	done
}
assert_within() { # WHAT
	local now=$(($(cached) - before))
	note "$1: resident $(region r resident_bytes), at most $(<"$work/most"), /proc/meminfo $now"
	assert_le "$(<"$work/most")" $limit "resident bytes"
	assert_le "$now" $((limit + slack)) "growth of the page cache"
	assert_ge "$now" $(($(region r resident_bytes) - slack)) "growth of the page cache"
}

hosts_up
start_server "r=mem://${mib}MiB"
start_rmemd
before=$(cached)
attach r --resident-limit $((limit >> 10))KiB --sync-timeout 120s
assert_eq $limit "$(region r resident_limit_bytes)" "the limit in status"
observe &
pids[observer]=$!

assert_exit 0 rmem-load make /dev/rmem-r $size 0
assert_within "written in order"
assert_exit 0 rmem-load read /dev/rmem-r 0
assert_within "read in order"
assert_ge "$(region r fetched_bytes)" $((size - limit)) "fetched bytes"

start load rmem-load run /dev/rmem-r "$work/oracle" 3 2
wait_for -t 120 at_least 500 rmem-load progress "$work/oracle"
stop load
assert_eq 0 "$status" "status of the load"
assert_within "roamed by three processes"
assert_exit 0 rmemctl sync r
assert_clean r

# A pull ends where it would have to evict.
assert_exit 0 rmemctl drop r
assert_exit 1 rmemctl pull r --wait
assert_match 'resident limit' "$err" "what pull says"
assert_match 'next: rmemctl drop' "$err" "what pull says next"
assert_within "pulled"
assert_ge "$(region r resident_bytes)" $((limit - (256 << 10))) "pulled bytes"
assert_exit 0 rmemctl drop r
assert_exit 0 rmemctl pull r --wait --range 0+8MiB
fetched=$(region r fetched_bytes)
assert_exit 0 rmem-load peek /dev/rmem-r $((7 << 20))
assert_eq "$fetched" "$(region r fetched_bytes)" "fetched bytes"

assert_exit 0 rmem-load compare /dev/rmem-r "$work/oracle" exact
assert_within "compared"
assert_eq 0 "$(region r errors)" "errors"
stop observer KILL
assert_exit 0 rmemctl detach r
