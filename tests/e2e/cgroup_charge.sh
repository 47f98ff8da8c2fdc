#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Whose memory a region's pages are: the memory cgroup of the task that needed
# them, and for what is pulled or read ahead that of the first user, not rmemd's.
. "$(dirname "$0")/lib.sh"

size=$((32 << 20)) slack=$((2 << 20))
groups=(e2e.daemon e2e.first e2e.second)
for g in "${groups[@]}"; do
	group_make "$g"
done
rmem-load make "$work/file" $size 1
rmem-load make "$work/other" $size 2
hosts_up
start_server "f=file://$work/file" "g=file://$work/other"
in_cli start rmemd "${in_group[@]}" e2e.daemon rmemd
attach f --chunk 64KiB

current() { cat "/sys/fs/cgroup/$1/memory.current"; }
# What each has more than at the last look, in $grown_GROUP.
look() {
	local g now
	for g in "${groups[@]}"; do
		now=$(current "$g")
		printf -v "grown_${g#e2e.}" %d $((now - ${last[$g]:-0}))
		last[$g]=$now
	done
	note "grown: daemon ${grown_daemon:-}, first ${grown_first:-}, second ${grown_second:-}"
}
declare -A last=()
pulled() {
	assert_exit 0 rmemctl drop f
	assert_eq 0 "$(region f resident_bytes)" "resident bytes"
	look
	assert_exit 0 rmemctl pull f --wait
	assert_eq $size "$(region f resident_bytes)" "resident bytes"
	look
}

# It maps, and touches nothing.
start first "${in_group[@]}" e2e.first rmem-load hold /dev/rmem-f
pulled
assert_ge "$grown_first" $((size - slack)) "what the user is charged for a pull"
assert_le "$grown_daemon" $slack "what rmemd is charged for a pull"
# Another user does not change that.
start second "${in_group[@]}" e2e.second rmem-load hold /dev/rmem-f
pulled
assert_ge "$grown_first" $((size - slack)) "what the first user is charged"
assert_le "$grown_second" $slack "what the second user is charged"

# Who misses a page pays for its chunk, whoever came first.
attach g --chunk 1MiB
start first_of_g "${in_group[@]}" e2e.first rmem-load hold /dev/rmem-g
look
for i in 30 26 22 18 14 10 6 2; do
	assert_exit 0 "${in_group[@]}" e2e.second rmem-load peek /dev/rmem-g $((i << 20))
done
look
assert_ge "$grown_second" $((6 << 20)) "what the second user is charged for the chunks that he missed"
assert_le "$grown_first" $slack "what the first user is charged for them"
stop first_of_g
assert_exit 0 rmemctl detach g
look

# Its group may go: the parent pays then, here the root.
echo "${pids[first]}" >/sys/fs/cgroup/cgroup.procs
assert_exit 0 rmemctl drop f
rmdir /sys/fs/cgroup/e2e.first
assert_exit 0 rmemctl pull f --wait
groups=(e2e.daemon e2e.second)
look
assert_le "$grown_daemon" $slack "what rmemd is charged for a group that is gone"
assert_le "$grown_second" $slack "what the second user is charged"

# The last user is forgotten; the next one that needs bytes pays for them and
# for those that are read ahead of it.
stop first
stop second
assert_exit 0 rmemctl drop f
look
assert_exit 0 "${in_group[@]}" e2e.second rmem-load scan /dev/rmem-f
look
assert_ge "$grown_second" $((size - slack)) "what the reader is charged"
assert_le "$grown_daemon" $slack "what rmemd is charged for reading ahead"
assert_le "$(demand_fetches f)" $((size / 65536 / 8)) "demand fetches: where nobody waited it was read ahead"

# Pulled for nobody in particular: rmemd pays.
pulled
assert_ge "$grown_daemon" $((size - slack)) "what rmemd is charged for a pull without users"
assert_exit 0 rmemctl detach f
