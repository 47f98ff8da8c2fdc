#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: mem=512 scratch=2G
# timeout: 300, long 2700
#
# Server and client share a machine, which is what page caches that need each
# other to become clean can deadlock on: all dirty pages that the kernel allows
# are written all the time, memory runs short again and again, and there is no
# swap. The load never stops, nobody is killed, no page is wrong.
. "$(dirname "$0")/lib.sh"

seconds=$(long_or 1800 30)
sysctl -q vm.dirty_bytes=$((8 << 20)) vm.dirty_background_bytes=$((2 << 20))
on_exit() {
	umount -l "$work/hog"
	sysctl -q vm.dirty_ratio=20 vm.dirty_background_ratio=10
}
available_mib() { awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo; }
counter() { awk -v name="$1" '$1 == name { print $2 }' /proc/vmstat; }

mkdir "$work/hog"
mount -t tmpfs -o size=100% hog "$work/hog"
rmem-load make /scratch/file $((64 << 20)) 0
head -c 192M /dev/zero >/scratch/other
start server rmem-server --listen tcp://127.0.0.1:7070 --state-dir "$work/state" --export r=file:///scratch/file
start_rmemd
assert_exit 0 rmemctl attach r rmem://127.0.0.1/r --chunk 64KiB --push-interval 1s \
	--dirty-limit 4MiB --fault-timeout 600s --sync-timeout 600s
start load rmem-load run /dev/rmem-r "$work/oracle" 2 4

# Memory nobody can take away grows until little is left, and is gone. What is
# read and written beside it wants its share of page cache and of dirty pages.
hog() {
	while :; do
		until ((free = $(available_mib) - 30, free < 10)); do
			head -c ${free}M /dev/zero >>"$work/hog/it"
		done
		sleep 2
		rm -f "$work/hog/it"
		sleep 1
	done
}
stream() {
	while :; do
		cat /scratch/other >/dev/null
		dd if=/dev/zero of=/scratch/other bs=1M count=32 conv=notrunc 2>/dev/null
	done
}
hog & helpers=($!)
stream & helpers+=($!)

# All of it has to be so: little memory, and writing at the limit, which begins to
# brake half-way between background and limit.
least=9999 most=0 before=0
pressed() { ((least <= 60 && most >= 4)); } # MiB
end=$((SECONDS + seconds))
while ((SECONDS < end)) || { ! pressed && ((SECONDS < end + 60)); }; do
	for _ in {1..10}; do
		sleep 1
		free=$(available_mib)
		((free >= least)) || least=$free
		dirty=$((($(counter nr_dirty) + $(counter nr_writeback)) / 256))
		((dirty <= most)) || most=$dirty
	done
	wait_for at_least $((before + 1)) rmem-load progress "$work/oracle"
	before=$(rmem-load progress "$work/oracle")
	alive load || fail "the load ended: $(<"$work/load.log")"
done
kill "${helpers[@]}"
note "at least $least MiB available, at most $most MiB dirty or under writeback," \
	"$(counter allocstall_normal) + $(counter allocstall_movable) direct reclaims"
note "$(region r pushed_bytes) bytes pushed, $(region r fetched_bytes) fetched, $(region r demand) demand faults"

pressed || fail "that was no pressure"
stop load
assert_eq 0 "$status" "status of the load"
assert_exit 0 rmemctl sync r
assert_clean r
assert_eq 0 "$(region r errors)" "errors"
assert_exit 0 rmem-load compare /scratch/file "$work/oracle" exact
note "$(tail -n 1 "$work/load.log"); $out"
assert_eq 0 "$(counter oom_kill)" "OOM kills"
assert_exit 0 rmemctl detach r
