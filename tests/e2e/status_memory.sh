#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What module and daemon take beside a region's pages: told by status, within its
# bound under load and while the server is silent, and given back afterwards.
. "$(dirname "$0")/lib.sh"

size=$((16 << 20))
rmem-load make "$work/f" $size 0
rmem-load make "$work/g" $size 0
hosts_up
start_server "f=file://$work/f" "g=file://$work/g"
start_rmemd
no_flusher
attach f --chunk 64KiB --push-interval 1h
attach g --chunk 1MiB --push-interval 1h
assert_eq 0 "$(region f module_bytes)" "module bytes of an idle region"
# told FIELD: by rmemd; status does not wait for one that is slow.
told() {
	wait_for tells "$1"
	echo "$told"
}
tells() { told=$(region f "$1") && [[ $told != null ]]; }
assert_eq 0 "$(told daemon_bytes)" "daemon bytes of an idle region"
idle=$(told daemon_total_bytes) bound=$(told daemon_bound_bytes)
assert_ge "$idle" $((65536 + (1 << 20))) "the chunks kept for two regions"
assert_ge "$bound" "$idle" bound
wait_for region_is g daemon_bound_bytes "$bound" # in the other region's words

# A log entry for each dirty chunk, nothing for the pages themselves.
declare -A entry=() # its size, of a region
for name in f g; do
	assert_exit 0 rmem-load poke /dev/rmem-$name 0 0 # as it is
	entry[$name]=$(region $name module_bytes)
done
assert_ge "${entry[f]}" 8 "module bytes of one dirty chunk"
assert_ge "${entry[g]}" $((entry[f] + (256 - 16) / 8)) "module bytes of one of more pages"
assert_exit 0 rmem-load poke /dev/rmem-f 4096 1
assert_eq "${entry[f]}" "$(region f module_bytes)" "module bytes of two dirty pages of a chunk"
assert_exit 0 rmem-load poke /dev/rmem-f $((10 * 65536)) 1
assert_eq $((2 * entry[f])) "$(region f module_bytes)" "module bytes of two dirty chunks"
# Nothing under way, and nothing but entries. One stays where somebody held a page
# while it was cleaned.
settled() { # NAME CHUNKS: that have been dirty
	local bytes
	bytes=$(region "$1" module_bytes)
	[[ $(region "$1" daemon_bytes) == 0 ]] &&
		((bytes % entry[$1] == 0 && bytes <= $2 * entry[$1]))
}
for name in f g; do
	assert_exit 0 rmemctl sync $name
done
wait_for settled f 2
wait_for settled g 1

most=0
look() {
	local total
	total=$(told daemon_total_bytes)
	((total <= most)) || most=$total
	assert_le "$total" "$bound" "what rmemd takes"
}
# A server that is silent: what is asked of it is counted, until it is taken for dead.
asked() {
	kill -CONT "${pids[server]}"
	rmemctl drop f
	kill -STOP "${pids[server]}"
	rmemctl pull f
	bytes=$(region f module_bytes)
	look
	((bytes >= 32 * 200))
}
wait_for asked
kill -CONT "${pids[server]}"
note "silent server: module $bytes, daemon $most"
wait_for settled f 2
assert_eq $size "$(region f resident_bytes)" "resident bytes"

# Under load; writes go through buffers.
start load rmem-load run /dev/rmem-g "$work/oracle" 2 2
for _ in {1..15}; do
	look
	sleep 0.1
done
stop load
assert_eq 0 "$status" "status of the load"
assert_ge "$most" $((idle + 1)) "the most that rmemd took"
note "idle $idle, most $most, bound $bound"
assert_exit 0 rmemctl sync g
wait_for settled g 16
note "g: module $(region g module_bytes), an entry has ${entry[g]}"
assert_le "$(told daemon_total_bytes)" $((idle + (1 << 20))) "what rmemd takes afterwards"

# A daemon that does not answer is left out, and not waited for.
kill -STOP "${pids[rmemd]}"
start=${EPOCHREALTIME/./}
assert_eq null "$(region f daemon_bytes)" "daemon bytes of a silent daemon"
assert_le $((${EPOCHREALTIME/./} - start)) $((20000000 * ${RMEM_TIMEOUT_SCALE:-1})) "microseconds that status took"
assert_le "$(region f module_bytes)" $((2 * entry[f])) "module bytes, told by the kernel"
kill -CONT "${pids[rmemd]}"
assert_exit 0 rmemctl detach f
assert_exit 0 rmemctl detach g
