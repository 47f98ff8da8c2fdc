#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: peer=512
# timeout: long 7200
#
# The server's host, a VM with a disk, is reset again and again, alone and together with what befalls the
# daemon and this machine, while processes use a region and know what it has to hold. After each reset its
# disk has what was promised, word by word, and nothing that was never written; no process notices.
. "$(dirname "$0")/nemesis.sh"

seeds=${RMEM_SEEDS:-$(long_or 10 1)} rounds=$(long_or 5 1)
first_seed=$RMEM_SEED size=$(((2 << 20) + 1000)) began=0 now=0 options=''
peer_up
# The kernel there writes nothing back that it was not told to: what is lost by a reset would otherwise
# depend on its age.
nothing_on_its_own() { on_peer sysctl -q vm.dirty_writeback_centisecs=0; }
file_seen() {
	nothing_on_its_own
	on_peer cat /scratch/file >"$work/seen"
	assert_exit 0 rmem-fsx check "$work/seen" "$work/oracle"
	note "reset: $out"
}
# Without holes each chunk has its file.
dir_seen() {
	nothing_on_its_own
	on_peer bash -c 'cat /scratch/dir/000/00000?' >"$work/seen"
	assert_exit 0 rmem-fsx check "$work/seen" "$work/oracle"
	note "reset: $out"
}
start_rmemd
for ((seed = first_seed; seed < first_seed + seeds; seed++)); do
	RMEM_SEED=$seed RANDOM=$((seed % 32768))
	rmem-fsx make "$work/file" $size
	if ((seed % 2)); then
		nemesis_exports=("r=file:///scratch/file?size=$size") host_seen=(file_seen) options=''
	else
		nemesis_exports=("r=dir:///scratch/dir?size=$size&chunk=256KiB") host_seen=(dir_seen) options=--no-punch
	fi
	nothing_on_its_own
	on_peer rm -rf /scratch/file /scratch/dir
	peer_server "${nemesis_exports[@]}"
	attach r --chunk 64KiB --push-interval 300ms --sync-timeout 300s --fault-timeout 300s
	dd if="$work/file" of=/dev/rmem-r bs=64K conv=fsync,notrunc status=none
	start load rmem-fsx run /dev/rmem-r r@/dev/rmem --oracle "$work/oracle" --processes 3 $options
	uptime_is began
	nemeses $rounds host_reset
	nemeses $rounds host_reset daemon_kill daemon_stop machine_suspend machine_clock machine_cpu memory_drop
	uptime_is now
	wait_for region_is r state active
	stop load
	assert_eq 0 "$status" "status of the load, seed $seed: $(<"$work/load.log")"
	assert_exit 0 rmemctl sync r
	assert_clean r
	assert_eq 0 "$(region r errors)" "errors, seed $seed"
	peer_reset
	"${host_seen[@]}"
	assert_exit 0 rmem-fsx check "$work/seen" "$work/oracle" exact
	peer_server "${nemesis_exports[@]}"
	wait_for region_is r state active
	assert_exit 0 rmemctl drop r
	assert_exit 0 rmem-fsx check /dev/rmem-r "$work/oracle" exact
	note "seed $seed, ${nemesis_exports[*]}, $((now - began)) s: $(tail -n 1 "$work/load.log")"
	note "$(nemeses_befell)"
	assert_exit 0 rmemctl detach r
	on_peer pkill -x rmem-server
	rm "$work"/{oracle,load.log}
done
