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
attach f --chunk 64KiB --push-interval 1h
attach g --chunk 1MiB
assert_eq 0 "$(region f module_bytes)" "module bytes of an idle region"
assert_eq 0 "$(region f daemon_bytes)" "daemon bytes of an idle region"
idle=$(region f daemon_total_bytes) bound=$(region f daemon_bound_bytes)
assert_ge "$idle" $((65536 + (1 << 20))) "the chunks kept for two regions"
assert_ge "$bound" "$idle" bound
assert_eq "$bound" "$(region g daemon_bound_bytes)" "bound, in the other region's words"

# A log entry for each dirty chunk, nothing for the pages themselves.
assert_exit 0 rmem-load poke /dev/rmem-f 0 1
one=$(region f module_bytes)
assert_ge "$one" 8 "module bytes of one dirty chunk"
assert_exit 0 rmem-load poke /dev/rmem-f 4096 1
assert_eq "$one" "$(region f module_bytes)" "module bytes of two dirty pages of a chunk"
assert_exit 0 rmem-load poke /dev/rmem-f $((10 * 65536)) 1
assert_eq $((2 * one)) "$(region f module_bytes)" "module bytes of two dirty chunks"
assert_exit 0 rmemctl sync f
# An entry stays where somebody held the page while it was cleaned.
assert_le "$(region f module_bytes)" $((2 * one)) "module bytes when all is clean"

# A server that is silent: what is asked of it is counted.
most=0
look() {
	local total
	total=$(region f daemon_total_bytes)
	[[ $total != null ]] || return 0
	((total <= most)) || most=$total
	assert_le "$total" "$bound" "what rmemd takes"
}
kill -STOP "${pids[server]}"
assert_exit 0 rmemctl pull f
asked() { region f module_bytes; }
wait_for at_least $((32 * 200)) asked
note "silent server: module $(region f module_bytes), daemon $(region f daemon_total_bytes)"
look
kill -CONT "${pids[server]}"
settled() { # NAME CHUNKS: nothing under way; log entries of so many at most
	[[ $(region "$1" daemon_bytes) == 0 ]] && (($(region "$1" module_bytes) <= $2 * 64))
}
wait_for -t 60 settled f 2
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
assert_le "$(region f daemon_total_bytes)" $((idle + (1 << 20))) "what rmemd takes afterwards"

# A daemon that does not answer is left out, and not waited for.
kill -STOP "${pids[rmemd]}"
start=${EPOCHREALTIME/./}
assert_eq null "$(region f daemon_bytes)" "daemon bytes of a silent daemon"
assert_le $((${EPOCHREALTIME/./} - start)) $((3000000 * ${RMEM_TIMEOUT_SCALE:-1})) "microseconds that status took"
assert_le "$(region f module_bytes)" $((2 * 64)) "module bytes, told by the kernel"
kill -CONT "${pids[rmemd]}"
assert_exit 0 rmemctl detach f
assert_exit 0 rmemctl detach g
