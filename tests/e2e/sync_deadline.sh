#!/bin/bash
# SPDX-License-Identifier: MIT
#
# fsync, msync and rmemctl sync end by --sync-timeout: with EIO, and 7 when the
# server is gone, 5 when the daemon is silent. The pages stay dirty; once all
# are there again, sync succeeds.
. "$(dirname "$0")/lib.sh"

hosts_up
rmem-load make "$work/file" 65536 0
start_server "r=file://$work/file"
start_rmemd
attach r --sync-timeout 1500ms --push-interval 1h --chunk 4KiB
assert_exit 0 rmem-load write /dev/rmem-r 1
assert_exit 0 rmemctl sync r

sync_succeeds() { rmemctl sync r; }
stay_dirty() { # BYTES: those that a write has under way come back as well
	assert_ge "$(unsafe r)" "$1" "bytes that are not durable"
	wait_for region_is r dirty_bytes "$1"
}
ends_in_time() { # CODE COMMAND... : not before the timeout, nor much later
	local before=${EPOCHREALTIME/[.,]/} took
	assert_exit "$@"
	took=$(((${EPOCHREALTIME/[.,]/} - before) / 1000))
	assert_ge $took 1300 "ms of '${*:2}'"
	assert_le $took $((30000 * ${RMEM_TIMEOUT_SCALE:-1})) "ms of '${*:2}'"
}

note "the server is gone"
stop server KILL
ends_in_time 5 rmem-load poke /dev/rmem-r 0 7 msync # EIO
assert_eq "msync: Input/output error" "$out" "msync"
ends_in_time 5 rmem-load poke /dev/rmem-r 8192 7 fsync
ends_in_time 7 rmemctl sync r
assert_match "r.*$SRV4" "$err" "stderr"
assert_match "next: " "$err" "stderr"
ends_in_time 7 rmemctl detach r
stay_dirty 8192
assert_eq degraded "$(region r state)" "state"
assert_eq 0x7 "$(rmem-load peek /dev/rmem-r 0)" "the dirty word"
start_server "r=file://$work/file"
wait_for region_is r state active
assert_exit 0 rmemctl sync r
assert_clean r

note "the link is cut"
link_down
ends_in_time 5 rmem-load poke /dev/rmem-r 4096 8 fsync
ends_in_time 7 rmemctl sync r
link_up
wait_for sync_succeeds
assert_clean r

note "the daemon is silent"
kill -STOP "${pids[rmemd]}"
ends_in_time 5 rmem-load poke /dev/rmem-r 0 9 msync
ends_in_time 5 rmemctl sync r
assert_match "rmemd.*did not answer" "$err" "stderr"
stay_dirty 4096
kill -CONT "${pids[rmemd]}"
wait_for sync_succeeds
assert_clean r

note "the daemon is dead"
stop rmemd KILL
ends_in_time 5 rmem-load poke /dev/rmem-r 0 10 fsync
stay_dirty 4096
start_rmemd
wait_for sync_succeeds
assert_clean r
for word in "0 10" "4096 8" "8192 7"; do
	assert_eq "${word#* }" "$(od -An -tu8 -j"${word% *}" -N8 "$work/file" | tr -d ' ')" "the server's word at ${word% *}"
done
assert_exit 0 rmemctl detach r
