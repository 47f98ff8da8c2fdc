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

# Four seconds' worth goes, and never more than the rate allows.
keeps_to_rate() { # SINCE-UPTIME COUNTER
	local i bytes now
	for ((i = 1; i <= 4; i++)); do
		wait_for at_least $((i * rate)) region f "$2"
		bytes=$(region f "$2")
		uptime_is now
		assert_le "$bytes" $(((now - $1 + 1) * rate + 2 * chunk)) "$2 after $((now - $1)) s"
	done
	note "$2: $bytes in $((now - $1)) s"
}
# A busy daemon may not tell in time.
rates_are() { region_is f pull_rate "$1" && region_is f push_rate "$2"; }

uptime_is begun
attach f --pull all --pull-rate 1MiB --push-rate 1MiB --push-interval 1s --sync-timeout 120s
wait_for rates_are $rate $rate
keeps_to_rate "$begun" fetched_bytes
assert_eq 0x2f00 "$(rmem-load peek /dev/rmem-f $((0x2f00 * 4096)))" "a page far from there"
assert_le "$(region f resident_bytes)" $((size / 2)) "bytes in memory"

assert_exit 2 rmemctl limit f
assert_exit 3 rmemctl limit nobody --pull-rate 0
assert_exit 0 rmemctl limit f --pull-rate 0
wait_for rates_are 0 $rate
all_there() { (($(region f resident_bytes) == size)); }
wait_for all_there

uptime_is begun
rmem-load write /dev/rmem-f 8
keeps_to_rate "$begun" pushed_bytes
stop rmemd KILL
start_rmemd
wait_for region_is f state active
wait_for rates_are 0 $rate # for the successor
assert_exit 0 rmemctl sync f
assert_ge "$(region f pushed_bytes)" $size "bytes pushed"
cmp "$work/file" /run/rmem/regions/f
assert_exit 0 rmemctl detach f
