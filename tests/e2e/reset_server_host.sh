#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: peer=512
# timeout: 600, long 5400
#
# The server's host, a VM with a disk, is reset: once between the acknowledgement
# of a write and its flush, then at random moments under a random load on a file
# and a directory. What fsync promised is on the disk each time, the rest is
# pushed again, the load never notices. A memory store is another one afterwards:
# its region fails, and nothing reads as zeros.
. "$(dirname "$0")/lib.sh"

resets=$(long_or 50 1) ms=0
stores=("file=file:///scratch/file" "dir=dir:///scratch/dir?size=1MiB&chunk=256KiB"
	"held=file:///scratch/held" "memory=mem://1MiB")
word() { on_peer od -An -tu8 -j "$2" -N8 "/scratch/$1" | tr -d ' '; }

peer_up
# The kernel there writes nothing back that it was not told to: what is lost by
# a reset would otherwise depend on its age.
nothing_on_its_own() { on_peer sysctl -q vm.dirty_writeback_centisecs=0; }
nothing_on_its_own
on_peer bash -c 'cd /scratch && rmem-load make held 65536 1 && rmem-load make file $((1 << 20)) 0 && sync'
peer_server "${stores[@]}"
start_rmemd

note "between acknowledgement and flush"
# Held back here, so that the flush waits for it: the server has long said yes.
assert_exit 0 rmemctl attach held "delay+rmem://$SRV4/held?delay.write=25s" --insecure \
	--sync-timeout 200s --fault-timeout 200s --chunk 4KiB
attach memory --chunk 4KiB --push-interval 1h
assert_exit 0 rmem-load poke /dev/rmem-memory 0 5 fsync
assert_exit 0 rmem-load peek /dev/rmem-memory 65536
assert_exit 0 rmem-load peek /dev/rmem-held 8192
rmem-load poke /dev/rmem-held 8192 77 fsync & poke=$!
applied() { [[ $(word held 8192) == 77 ]]; }
wait_for -t 20 applied
peer_reset
nothing_on_its_own
assert_eq 2 "$(word held 8192)" "the word after the reset: lost, as a write without a flush is"
peer_server "${stores[@]}"
wait $poke || fail "fsync failed"
on_peer bash -c 'echo 3 >/proc/sys/vm/drop_caches'
assert_eq 77 "$(word held 8192)" "the word that fsync promised"
wait_for rmemctl detach held

wait_for region_is memory state failed
assert_exit 0 rmem-load poke /dev/rmem-memory 65536 6
assert_error 8 "memory.*another store" rmemctl sync memory
assert_exit 0 rmemctl drop memory
assert_exit 116 rmem-load pread /dev/rmem-memory 0 8 # ESTALE
assert_exit 1 rmemctl detach memory --force
assert_match "lost_bytes=4096 " "$err" "what was lost"

note "at random moments"
for store in file dir; do
	attach $store --chunk 64KiB --push-interval 300ms --sync-timeout 300s --fault-timeout 300s
done
# A fresh directory is all holes, which the load would take for damage.
assert_exit 0 rmem-load write /dev/rmem-dir 0
assert_exit 0 rmemctl sync dir
for store in file dir; do
	start load_$store rmem-load run /dev/rmem-$store "$work/$store.oracle" 1 3
done
stored() { # what the disk has of it
	if [[ $1 == dir ]]; then
		on_peer bash -c 'cat /scratch/dir/000/00000?'
	else
		on_peer cat "/scratch/$1"
	fi >"$work/$1.seen"
	assert_exit 0 rmem-load compare "$work/$1.seen" "$work/$1.oracle" "${@:2}"
}
for ((round = 1; round <= resets; round++)); do
	random ms 3000
	sleep "$((ms / 1000)).$(printf %03d $((ms % 1000)))"
	peer_reset
	nothing_on_its_own
	assert_eq 77 "$(word held 8192)" "the word that fsync promised, after another reset"
	for store in file dir; do
		stored $store
		note "reset $round after $ms ms: $store: $out"
	done
	peer_server "${stores[@]}"
	for store in file dir; do
		before=$(rmem-load progress "$work/$store.oracle")
		wait_for at_least $((before + 20)) rmem-load progress "$work/$store.oracle"
		alive load_$store || fail "the load ended: $(<"$work/load_$store.log")"
	done
done

for store in file dir; do
	stop load_$store
	assert_eq 0 "$status" "status of the load"
	assert_exit 0 rmemctl sync $store
	assert_clean $store
	assert_eq 0 "$(region $store errors)" "errors"
done
peer_reset
for store in file dir; do
	stored $store exact
	note "$(tail -n 1 "$work/load_$store.log"); $out"
done
peer_server "${stores[@]}"
for store in file dir; do
	wait_for region_is $store state active
	assert_exit 0 rmemctl drop $store
	assert_exit 0 rmem-load compare /dev/rmem-$store "$work/$store.oracle" exact
	assert_exit 0 rmemctl detach $store
done
