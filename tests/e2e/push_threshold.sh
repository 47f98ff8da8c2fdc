#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Pushing begins when --push-threshold bytes are dirty, long before the interval and without
# a limit. What is written again and again before that is pushed once.
. "$(dirname "$0")/lib.sh"

no_flusher
size=$((8 << 20))
rmem-load make "$work/file" $size 1
hosts_up
start_server "r=file://$work/file"
start_rmemd
assert_error 2 "push-threshold.*64KiB" rmemctl attach r "rmem://$SRV4/r" --insecure --push-threshold 4KiB
attach r --push-threshold 1MiB --push-interval 1h --chunk 64KiB
assert_eq $((1 << 20)) "$(region r push_threshold_bytes)" "the threshold in status"
assert_exit 0 rmem-load read /dev/rmem-r 1

pushed() { region r pushed_bytes; }
for i in {1..12}; do
	assert_exit 0 rmem-load poke /dev/rmem-r $((i % 4 * 4096)) "$i"
done
assert_eq 0 "$(pushed)" "pushed bytes below the threshold"
assert_eq $((4 * 4096)) "$(unsafe r)" "bytes at risk below the threshold"

# All of it once. Hardly as much as the threshold may be left.
assert_exit 0 rmem-load write /dev/rmem-r 2
little() { (($(unsafe r) < 1 << 20)); }
wait_for little
note "$(pushed) bytes pushed of $size, $(unsafe r) left"
assert_ge "$(pushed)" $((size - (1 << 20))) "pushed bytes"
assert_le "$(pushed)" $((size + (1 << 20))) "pushed bytes"

# It is the region's, whoever serves it.
stop rmemd KILL
start_rmemd
wait_for region_is r state active
assert_exit 0 rmem-load write /dev/rmem-r 3
wait_for little
assert_exit 0 rmemctl sync r
assert_exit 0 rmem-load check "$work/file" 3
assert_exit 0 rmemctl detach r
