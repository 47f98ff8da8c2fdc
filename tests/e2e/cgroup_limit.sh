#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: mem=768 scratch=1G
# timeout: 400, long 600
#
# A program that may have 64 MiB walks through a region one and a half times that size,
# three times in the long form,
# reads and writes all of it, through a mapping and by system calls: it stays
# within its limit, nobody is killed, and no byte is wrong. Nor is anybody where the
# server is away for a while: who writes waits.
. "$(dirname "$0")/lib.sh"

size=$(($(long_or 192 96) << 20)) limit=$((64 << 20))
file=/scratch/big
group_make e2e.limited $limit
group=/sys/fs/cgroup/e2e.limited
rmem-load make $file $size 1
hosts_up
start_server "big=file://$file"
start_rmemd
attach big
lap() {
	note "$1: $((SECONDS - ${lap_start:-0})) s, peak $(<$group/memory.peak), $(grep '^max' $group/memory.events)"
	lap_start=$SECONDS
	assert_le "$(<$group/memory.peak)" $limit "peak of the group, bytes"
	assert_match $'oom 0\noom_kill 0' "$(<$group/memory.events)" "memory.events"
	assert_eq 0 "$(region big errors)" errors
}
lap "set up"

assert_exit 0 "${in_group[@]}" e2e.limited rmem-load rewrite /dev/rmem-big 2
lap "read, verified and written through a mapping"
assert_exit 0 "${in_group[@]}" e2e.limited rmem-load read /run/rmem/regions/big 2 2
lap "read by two threads"
assert_exit 0 "${in_group[@]}" e2e.limited rmem-load check /dev/rmem-big 2
lap "read by read(2)"
rmem-load make /scratch/next $size 3
assert_exit 0 "${in_group[@]}" e2e.limited dd if=/scratch/next of=/dev/rmem-big bs=1M iflag=direct conv=fsync
lap "written by write(2), and synced"
assert_clean big
assert_exit 0 rmem-load check $file 3
lap "verified at the server"

# All that the group may have is dirty, and cannot be pushed.
rmem-load make /scratch/next $size 4
assert_exit 0 rmemctl drop big
kill -STOP "${pids[server]}"
"${in_group[@]}" e2e.limited dd if=/scratch/next of=/dev/rmem-big bs=1M iflag=direct conv=fsync \
	>"$work/dd.log" 2>&1 &
writer=$!
# Its writes go no further, since they wait or because it is dead.
stands_still() {
	local before=$seen
	seen=$(unsafe big)
	((seen == before)) || still=0
	((seen > limit / 8 && ++still > 5))
}
seen=0 still=0
wait_for stands_still
note "while the server is away: $(unsafe big) bytes unsafe, $(<$group/memory.current) in the group"
kill -CONT "${pids[server]}"
wait "$writer" || fail "dd: $(<"$work/dd.log")"
lap "written by write(2) while the server was away"
assert_clean big
assert_exit 0 rmem-load check $file 4
assert_ge "$(grep -o '^max [0-9]*' $group/memory.events | cut -d' ' -f2)" 1 "times that the group was at its limit"
assert_exit 0 rmemctl detach big
