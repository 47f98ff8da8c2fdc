#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: mem=1024 smp=2
# timeout: 400, long 5400
# dmesg: Buffer I/O error on dev(ice)? dm-|lost a?sync page write|EXT4-fs (warning|error)( \(device dm-|: [0-9]+ callbacks)
#
# The server's disk is full, or fails, again and again, alone and together with what else befalls the
# server, while processes use the region and know what it has to hold. Syncs, holes and fetches fail then; nothing
# written is lost, nothing promised is missing, no byte is wrong, and all is well once the disk is.
. "$(dirname "$0")/nemesis.sh"

seeds=${RMEM_SEEDS:-$(long_or 20 1)} rounds=$(long_or 15 4)
first_seed=$RMEM_SEED size=$((2 << 20))
nemesis_store=$disk/file
hosts_up
start_rmemd
on_exit() {
	[[ ! $disk_loop ]] || disk_unmake
	umount -l "$disk" 2>/dev/null
	return 0
}

life() { # RMEM-FSX-OPTIONS NEMESIS... : with the disk at hand
	local options=$1 began=0 now=0
	shift
	rmem-fsx make "$disk/file" $((size + 1000))
	sync "$disk/file"
	nemesis_exports=("r=file://$disk/file")
	start_server "${nemesis_exports[@]}"
	attach r --chunk 64KiB --push-interval 300ms --sync-timeout 10s --fault-timeout 300s
	# shellcheck disable=SC2086  # words
	start load rmem-fsx run /dev/rmem-r --oracle "$work/oracle" --processes 3 --errors $options
	uptime_is began
	nemeses 1 "$1"
	nemeses $((rounds - 1)) "$@"
	uptime_is now
	wait_for region_is r state active
	stop load
	assert_eq 0 "$status" "status of the load, seed $RMEM_SEED: $(<"$work/load.log")"
	assert_exit 0 rmemctl sync r
	assert_clean r
	# What is durable is not only in the server's memory.
	echo 3 >/proc/sys/vm/drop_caches
	assert_exit 0 rmem-fsx check "$disk/file" "$work/oracle" exact
	assert_exit 0 rmemctl drop r
	assert_exit 0 rmem-fsx check /dev/rmem-r "$work/oracle" exact
	# That was no load, else; though in a short one chance may have spared it.
	[[ ! ${RMEM_LONG:-} ]] || assert_match ' [1-9][0-9]* errors$' "$(tail -n 1 "$work/load.log")" "what the processes were told"
	note "seed $RMEM_SEED, $((now - began)) s: $(tail -n 1 "$work/load.log")"
	note "$(nemeses_befell)"
	assert_exit 0 rmemctl detach r
	stop server
	rm "$work"/{oracle,load.log}
}

for ((seed = first_seed; seed < first_seed + seeds; seed++)); do
	RMEM_SEED=$seed RANDOM=$((seed % 32768))
	mkdir -p "$disk"
	mount -t tmpfs -o size=$((size * 5 / 4)) tmpfs "$disk"
	life "" disk_full daemon_kill server_kill server_restart link_cut
	umount "$disk"
	# Holes change what a file system knows of itself, which is lost with the writes that fail.
	disk_make "$work/image" $((size * 4))
	life --no-punch disk_error disk_dead server_kill daemon_kill memory_drop
	disk_unmake
	disk_loop=''
done
