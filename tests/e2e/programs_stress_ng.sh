#!/bin/bash
# SPDX-License-Identifier: MIT
#
# stress-ng does to the nodes what a device may expect of nobody: opens with every
# flag, mappings, polls, ioctls, seeks, many at once, while a program uses the
# region. No byte changes but the program's own.
. "$(dirname "$0")/lib.sh"

size=$((4 << 20))
rmem-load make "$work/served" $size 0 # where the load begins
rmem-load make "$work/other" $size 1
hosts_up
start_server "s=file://$work/served" "o=file://$work/other"
start_rmemd
attach s --chunk 64KiB
attach o --chunk 64KiB

# Its patience is that of its time-out: it ends by itself, with its verdict.
stress() { # NODE
	assert_exit 0 timeout 60 stress-ng --dev 3 --dev-file "$1" --timeout 3s --verify --metrics-brief
	note "$1: $(grep -Eo 'successful run.*|passed: [0-9]+.*' "$work/.out" "$work/.err" | head -n 1)"
	[[ $out$err != *fail:* ]] || fail "stress-ng on $1: $out$err"
}
start load rmem-load run /dev/rmem-s "$work/oracle" 2 2
stress /dev/rmem-s
stress /dev/rmem-o
stress /dev/rmem
stress /dev/rmem_control
stop load
assert_eq 0 "$status" "status of the load"

assert_eq active "$(region s state)" state
assert_eq 0 "$(region s errors)" errors
assert_eq 0 "$(region o pushed_bytes)" "bytes pushed of the region that nobody wrote to"
assert_exit 0 rmemctl sync s
assert_clean s
assert_exit 0 rmem-load compare "$work/served" "$work/oracle" exact
assert_exit 0 rmemctl detach s
assert_exit 0 rmemctl detach o
assert_exit 0 rmem-load check "$work/other" 1
