#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Dirty pages belong to the memory cgroup of the task that wrote them: counted
# there, pushed through its own flusher when the group's share is dirty, though
# the machine would allow much more.
. "$(dirname "$0")/lib.sh"

size=$((24 << 20))
group_make e2e.writer
group_make e2e.small $((48 << 20))
rmem-load make "$work/a" $size 1
rmem-load make "$work/b" $size 1
hosts_up
start_server "a=file://$work/a" "b=file://$work/b"
start_rmemd
attach a --push-interval 1h
attach b --push-interval 1h
on_exit() { echo 0 >/sys/kernel/tracing/events/writeback/writeback_start/enable; }
no_flusher # which still works where too much is dirty

stat_of() { # GROUP COUNTER
	awk -v name="$2" '$1 == name { print $2 }' "/sys/fs/cgroup/$1/memory.stat"
}
# What memory.stat may not have heard of yet: 64 pages a CPU.
slack=$((1 << 20))

# Counted, and left alone: it is far from any limit.
assert_exit 0 "${in_group[@]}" e2e.writer rmem-load write /dev/rmem-a 2
assert_eq $size "$(region a dirty_bytes)" "dirty bytes"
assert_eq 0 "$(region a pushed_bytes)" "pushed bytes of what need not be pushed"
wait_for at_least $((size - slack)) stat_of e2e.writer file_dirty
assert_le "$(stat_of e2e.small file_dirty)" $slack "dirty bytes of another group"

# Under way, then clean.
kill -STOP "${pids[server]}"
rmemctl sync a & sync=$!
wait_for at_least $((size - slack)) stat_of e2e.writer file_writeback
kill -CONT "${pids[server]}"
wait $sync || fail "sync: exit status $?"
assert_clean a
clean() { (($(stat_of e2e.writer file_dirty) + $(stat_of e2e.writer file_writeback) <= slack)); }
wait_for clean
assert_exit 0 rmem-load check "$work/a" 2

# The same in a group of 48 MiB: a part of its memory may be dirty, then its own
# flusher pushes.
ino=$(stat -c %i /sys/fs/cgroup/e2e.small)
echo "cgroup_ino == $ino" >/sys/kernel/tracing/events/writeback/writeback_start/filter
echo >/sys/kernel/tracing/trace
echo 1 >/sys/kernel/tracing/events/writeback/writeback_start/enable
# A writer has the kernel look how much is dirty when he has made some pages dirty that
# were not. The kernel then sees what the group's statistics know, which is two seconds
# old, unless somebody reads them.
while stat_of e2e.small file_dirty; do sleep 0.02; done >/dev/null &
reader=$!
pushed() { region b pushed_bytes; }
pushed_while_writing() {
	rmemctl sync b
	before=$(pushed)
	"${in_group[@]}" e2e.small rmem-load write /dev/rmem-b 2
	(($(pushed) >= before + size / 4))
}
wait_for pushed_while_writing
kill $reader
echo 0 >/sys/kernel/tracing/events/writeback/writeback_start/enable
starts=$(grep -c writeback_start: /sys/kernel/tracing/trace || true)
note "pushed $(($(pushed) - before)) of $size bytes in $starts turns of the group's flusher"
assert_ge "$starts" 1 "turns of the group's flusher"
assert_match "rmem-" "$(grep -m 1 writeback_start: /sys/kernel/tracing/trace)" "what it wrote back"
assert_match 'oom_kill 0' "$(</sys/fs/cgroup/e2e.small/memory.events)" "memory.events"
assert_exit 0 rmemctl sync b
assert_exit 0 rmem-load check "$work/b" 2
assert_exit 0 rmemctl detach a
assert_exit 0 rmemctl detach b
