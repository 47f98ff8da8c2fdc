#!/bin/bash
# SPDX-License-Identifier: MIT
# timeout: 300, long 900
#
# Over a distance, where a chunk takes longer than a page of it, the page that somebody waits for comes
# first, by itself, and the chunk follows; beside a pull, too. Writers, punches, drops and all else meet
# chunks that are half there, and no byte is ever wrong, for the model checker.
. "$(dirname "$0")/lib.sh"

size=$((16 << 20)) seconds=$(long_or 300 4)
early() { daemon_says r early; }
slow() { # RATE
	in_srv tc qdisc replace dev srv0 root netem rate "$1" delay 3ms
	in_cli tc qdisc replace dev cli0 root netem rate "$1" delay 3ms
}
# What the daemon knows of the distance is that of its connections when they were made.
fresh() { # OPTION...
	[[ ! -e /dev/rmem-r ]] || assert_exit 0 rmemctl detach r
	attach r --push-interval 300ms "$@"
	wait_for at_least 2 daemon_says r lanes
}

hosts_up
rmem-load make "$work/file" $size 3
start_server "r=file://$work/file"
start_rmemd
note "near nobody does so"
fresh --chunk 256KiB
for i in 1 2 3 4 5; do assert_exit 0 rmem-load peek /dev/rmem-r $((i << 20)); done
near=$(early)

slow 50mbit
note "far away the page is first"
fresh --chunk 1MiB
for i in 1 4 9 2 12 6; do
	assert_exit 0 rmem-load peek /dev/rmem-r $(((i << 20) + 8192))
	assert_eq "$(rmem-load peek "$work/file" $(((i << 20) + 8192)))" "$out" "the word"
done
assert_ge "$(early)" 4 "pages that came first"
assert_exit 0 rmemctl pull r --wait
cmp "$work/file" /run/rmem/regions/r
note "near $near, far $(early)"

note "beside a pull"
slow 15mbit # 9 seconds for all of it
fresh --chunk 256KiB --pull all
for i in 15 11 14 12 13; do assert_exit 0 rmem-load peek /dev/rmem-r $(((i << 20) + 8192)); done
assert_ge "$(early)" 2 "pages that came first"
wait_for -t 120 at_least $size region r resident_bytes
cmp "$work/file" /run/rmem/regions/r

note "no wrong byte"
size=$(((4 << 20) + 1000))
assert_exit 0 rmemctl detach r
slow 200mbit
stop server
rmem-fsx make "$work/file" $size
start_server "r=file://$work/file"
for options in "--chunk 256KiB" "--chunk 64KiB --resident-limit 1MiB --dirty-limit 1MiB"; do
	rm -f "$work/oracle"*
	rmem-fsx make "$work/file" $size
	# shellcheck disable=SC2086  # words
	fresh $options
	assert_exit 0 rmem-fsx run /dev/rmem-r r@/dev/rmem --oracle "$work/oracle" --seconds $seconds
	note "$options: $(tail -n 1 <<<"$out"); $(early) pages came first"
	assert_ge "$(early)" 1 "pages that came first"
	assert_exit 0 rmem-fsx check "$work/file" "$work/oracle"
	assert_exit 0 rmemctl sync r
	assert_clean r
	assert_eq 0 "$(region r errors)" errors
	assert_exit 0 rmem-fsx check "$work/file" "$work/oracle" exact
	assert_exit 0 rmemctl drop r
	assert_exit 0 rmem-fsx check /dev/rmem-r "$work/oracle" exact
done
