#!/bin/bash
# SPDX-License-Identifier: MIT
# timeout: 300
#
# What goes in the background keeps to its rate, which may be changed meanwhile and
# outlives rmemd; whoever waits for a page, or for an fsync, is not held back.
. "$(dirname "$0")/lib.sh"

size=$((48 << 20)) rate=$((1 << 20)) chunk=$((256 << 10))
rmem-load make "$work/file" $size 7
hosts_up
start_server "f=file://$work/file"
start_rmemd

# What has gone by now is no more than what the rate allows since then.
since() { # SECONDS BYTES WHAT
	assert_le "$2" $(((SECONDS - $1 + 1) * rate + 2 * chunk)) "$3 after $((SECONDS - $1)) s"
}
# A busy daemon may not tell in time.
rates_are() { region_is f pull_rate "$1" && region_is f push_rate "$2"; }

begun=$SECONDS
attach f --pull all --pull-rate 1MiB --push-rate 1MiB --push-interval 1s --sync-timeout 120s
wait_for rates_are $rate $rate
for ((i = 0; i < 4; i++)); do
	sleep 1
	came=$(region f fetched_bytes)
	since $begun "$came" "bytes pulled"
done
note "pulled $came bytes in $((SECONDS - begun)) s"
assert_ge "$came" $chunk "bytes pulled"
assert_eq 0x2f00 "$(rmem-load peek /dev/rmem-f $((0x2f00 * 4096)))" "a page far from there"
assert_le "$(region f resident_bytes)" $((size / 2)) "bytes in memory"

assert_exit 2 rmemctl limit f
assert_exit 3 rmemctl limit nobody --pull-rate 0
assert_exit 0 rmemctl limit f --pull-rate 0
wait_for rates_are 0 $rate
all_there() { (($(region f resident_bytes) == size)); }
wait_for all_there

begun=$SECONDS
rmem-load write /dev/rmem-f 8
for ((i = 0; i < 4; i++)); do
	sleep 1
	gone=$(region f pushed_bytes)
	since $begun "$gone" "bytes pushed"
done
note "pushed $gone bytes in $((SECONDS - begun)) s"
stop rmemd KILL
start_rmemd
wait_for region_is f state active
wait_for rates_are 0 $rate # for the successor
assert_exit 0 rmemctl sync f
assert_ge "$(region f pushed_bytes)" $size "bytes pushed"
cmp "$work/file" /run/rmem/regions/f
assert_exit 0 rmemctl detach f
