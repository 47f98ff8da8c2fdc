#!/bin/bash
# SPDX-License-Identifier: MIT
# timeout: 300, long 1800
#
# The model checker finds what is wrong: a write that is lost, with a trace that is as short as it can be;
# a byte, a page of zeros and a page of elsewhere at the server. Then it finds nothing in a region of an odd
# size by all three ways in, nor in one that may keep a fraction of its pages, with a cgroup that may
# neither.
. "$(dirname "$0")/lib.sh"

size=$(((4 << 20) + 1000)) seconds=$(long_or 300 5)
fresh() { # OPTION... : the region as it was made, attached with these
	[[ ! -e /dev/rmem-r ]] || assert_exit 0 rmemctl detach r
	rmem-fsx make "$work/file" $size
	attach r --chunk 64KiB --push-interval 300ms "$@"
}
fsx() { rmem-fsx run "$@" --oracle "$work/oracle"; }
hosts_up
rmem-fsx make "$work/file" $size
start_server "r=file://$work/file"
start_rmemd

note "a write is lost"
fresh
assert_exit 1 fsx /dev/rmem-r --processes 1 --ops 800 --plant 40
assert_match "FAILURE: seed $RMEM_SEED: .*, old: write .*want write" "$out" "the finding"
assert_match "what touched page .*(store|pwrite|dwrite) .*lost" "$out" "its log"
assert_match "([0-9]+) of ([0-9]+) operations are enough" "$out" "its trace"
note "${BASH_REMATCH[0]}"
assert_le "${BASH_REMATCH[1]}" 3 "operations of a trace for which two are enough"
assert_match "lost" "$(<"$work/oracle.trace")" "the trace"
assert_exit 1 fsx /dev/rmem-r --replay "$work/oracle.trace"
sed -i 's/ lost//' "$work/oracle.trace"
assert_exit 0 fsx /dev/rmem-r --replay "$work/oracle.trace"
assert_exit 1 fsx /dev/rmem-r --processes 3 --ops 800 --plant 40
assert_match "FAILURE: .*want write" "$out" "the finding of several"

note "the server's bytes are others"
declare -A finding=([byte]="from nowhere" [zero]=", zero;" [place]="that of offset")
for wrong in byte zero place; do
	fresh
	page=0
	random page $((size / 4096))
	case $wrong in
	byte) printf '\x55\xaa' | dd of="$work/file" bs=1 seek=$((page * 4096 + 77)) conv=notrunc status=none ;;
	zero) dd if=/dev/zero of="$work/file" bs=4096 count=1 seek=$page conv=notrunc status=none ;;
	place) dd if="$work/file" of="$work/file" bs=4096 count=1 skip=$(((page + 1) % (size / 4096))) seek=$page conv=notrunc status=none ;;
	esac
	assert_exit 1 fsx /dev/rmem-r --processes 2 --ops 1
	assert_match "FAILURE: .*${finding[$wrong]}.*want write 0" "$out" "a wrong $wrong"
	# What has been promised is not there: by the file alone.
	assert_exit 1 rmem-fsx check "$work/file" "$work/oracle"
done

sound() { # WHAT PATH...
	assert_exit 0 fsx "${@:2}" --seconds $seconds
	note "$1: $(tail -n 1 <<<"$out")"
	assert_exit 0 rmem-fsx check "$work/file" "$work/oracle"
	assert_exit 0 rmemctl sync r
	assert_clean r
	assert_eq 0 "$(region r errors)" "errors"
	assert_exit 0 rmem-fsx check "$work/file" "$work/oracle" exact
	assert_exit 0 rmemctl drop r
	assert_exit 0 rmem-fsx check /dev/rmem-r "$work/oracle" exact
}
fresh
sound "three ways in" /dev/rmem-r r@/dev/rmem /run/rmem/regions/r
fresh --resident-limit 1MiB --dirty-limit 1MiB
sound "a quarter resident" /dev/rmem-r

# What four processes know takes three times as much as the region, and stays in memory: no room for all of
# the region beside it.
size=$((12 << 20))
rm "$work/oracle"*
group_make e2e.fsx $((4 * size))
stop server
rmem-fsx make "$work/file" $size
start_server "r=file://$work/file"
fresh
fsx() { "${in_group[@]}" e2e.fsx rmem-fsx run "$@" --oracle "$work/oracle"; }
# All of it is there at first, however far the processes come on a busy host.
assert_exit 0 "${in_group[@]}" e2e.fsx rmem-load scan /dev/rmem-r
sound "a small cgroup" /dev/rmem-r
assert_match $'oom 0\noom_kill 0' "$(</sys/fs/cgroup/e2e.fsx/memory.events)" "memory.events"
assert_ge "$(sed -n 's/^max //p' /sys/fs/cgroup/e2e.fsx/memory.events)" 1 "times that the group was at its limit"
assert_exit 0 rmemctl detach r
