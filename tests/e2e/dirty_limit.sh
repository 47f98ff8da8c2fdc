#!/bin/bash
# SPDX-License-Identifier: MIT
#
# No more than the dirty limit is ever written and not durable. While the server
# hangs, the first write to a clean page waits there, or fails by the loss policy;
# pages that are dirty stay writable, all can be read, and nothing is lost.
. "$(dirname "$0")/lib.sh"

size=$((16 << 20)) limit=$((2 << 20))
rmem-load make "$work/file" $size 1
hosts_up
start_server "r=file://$work/file"
start_rmemd
attach r --dirty-limit 2MiB --chunk 64KiB --push-interval 200ms
assert_exit 0 rmem-load read /dev/rmem-r 1

kill -STOP "${pids[server]}"
start writer bash -c 'echo ready; exec rmem-load write /dev/rmem-r 2'
wait_for region_is r waiting 1
# A page that is written while it is pushed is both dirty and in writeback.
assert_le "$(region r dirty_bytes)" $limit "dirty bytes"
assert_ge "$(unsafe r)" $limit "bytes at risk"
assert_exit 0 rmemctl status r --why
assert_match "dirty limit of 2MiB" "$out" "why"
alive writer || fail "the writer ended"
# The first page is dirty, the last is not.
assert_exit 0 timeout 20 rmem-load poke /dev/rmem-r 0 7
assert_exit 124 timeout 2 rmem-load poke /dev/rmem-r $((size - 4096)) 7
assert_exit 0 rmem-load pread /dev/rmem-r 0 $size

kill -CONT "${pids[server]}"
wait "${pids[writer]}" || fail "the writer: $?"
unset "pids[writer]"
assert_exit 0 rmem-load write /dev/rmem-r 2
assert_exit 0 rmemctl sync r
assert_clean r
assert_exit 0 rmem-load check "$work/file" 2

# The limit is the region's, whoever serves it, and another one is another region.
stop rmemd KILL
start_rmemd
assert_eq $limit "$(region r dirty_limit_bytes)" "the limit in status"
assert_exit 0 rmemctl attach r "$scheme://$SRV4/r" "${over[@]}" --dirty-limit 2MiB --chunk 64KiB --push-interval 200ms
assert_error 6 "dirty|differ|other" rmemctl attach r "$scheme://$SRV4/r" "${over[@]}" --chunk 64KiB --push-interval 200ms
assert_exit 0 rmemctl detach r

for policy in error kill; do
	attach r --dirty-limit 1MiB --chunk 64KiB --on-loss $policy --fault-timeout 1s
	# A pull has no time to lose, and leaves nothing to be waited for.
	assert_exit 0 rmemctl pull r --wait
	assert_exit 0 rmem-load read /dev/rmem-r 2
	kill -STOP "${pids[server]}"
	want=$((128 + 7))
	[[ $policy == error ]] || want=$((128 + 9))
	assert_exit $want rmem-load write /dev/rmem-r 3
	[[ $policy == kill ]] || assert_exit 5 rmem-load pwrite /dev/rmem-r $((size - 4096)) 7
	kill -CONT "${pids[server]}"
	assert_exit 0 rmemctl sync r
	assert_exit 0 rmem-load poke /dev/rmem-r $((size - 4096)) 7
	assert_exit 0 rmemctl detach r
	attach r
	assert_exit 0 rmem-load write /dev/rmem-r 2
	assert_exit 0 rmemctl detach r
	assert_exit 0 rmem-load check "$work/file" 2
done
