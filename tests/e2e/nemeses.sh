#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: mem=1024 smp=2
# timeout: 400, long 14400
#
# Everything that may befall programs, the network and this machine, one or two at a time, at random moments,
# for random times, while processes use a region and know what it has to hold. Nothing written is lost, at
# no moment does the server lack what was promised, nobody sees a wrong byte, an error or a SIGBUS; and the
# machine goes to sleep whenever it is told to.
#
# RMEM_NEMESES="daemon_kill server_kill" leaves the others out. RMEM_SEEDS=N says how many lives there are.
. "$(dirname "$0")/nemesis.sh"

seeds=${RMEM_SEEDS:-$(long_or 50 1)} rounds=$(long_or 24 8) kills=$(long_or 10 1)
all=(daemon_kill daemon_kill daemon_restart daemon_stop server_kill server_kill server_restart server_stop
	link_cut link_deaf link_mute link_loss link_reorder link_duplicate link_corrupt link_flip link_far
	link_narrow machine_suspend machine_clock machine_cpu memory_compact memory_drop)
read -ra what <<<"${RMEM_NEMESES:-${all[*]}}"
first_seed=$RMEM_SEED size=$((3 << 20)) variant=0 began=0 now=0 operations=0 seconds=0
variants=("--chunk 64KiB" "--chunk 4KiB" "--chunk 64KiB --resident-limit 1MiB"
	"--chunk 16KiB --dirty-limit 1MiB" "--chunk 1MiB" "--chunk 64KiB --resident-limit 2MiB --dirty-limit 1MiB")
hosts_up
start_rmemd
for ((seed = first_seed; seed < first_seed + seeds; seed++)); do
	RMEM_SEED=$seed RANDOM=$((seed % 32768))
	random variant ${#variants[@]}
	rmem-fsx make "$work/file" $((size + 1000))
	nemesis_exports=("r=file://$work/file")
	start_server "${nemesis_exports[@]}"
	# shellcheck disable=SC2086  # words
	attach r ${variants[variant]} --push-interval 300ms --sync-timeout 300s --fault-timeout 300s
	start load rmem-fsx run /dev/rmem-r r@/dev/rmem --oracle "$work/oracle" --processes 3
	uptime_is began
	# So many of these two in each life, whatever chance says.
	nemesis_ms=600 nemeses $kills daemon_kill
	nemesis_ms=600 nemeses $kills server_kill
	nemeses $rounds "${what[@]}"
	uptime_is now
	seconds=$((seconds + now - began))

	wait_for region_is r state active
	stop load
	assert_eq 0 "$status" "status of the load, seed $seed: $(<"$work/load.log")"
	operations=$((operations + $(load_done)))
	assert_exit 0 rmemctl sync r
	assert_clean r
	assert_eq 0 "$(region r errors)" "errors, seed $seed"
	assert_exit 0 rmem-fsx check "$work/file" "$work/oracle" exact
	assert_exit 0 rmemctl drop r
	assert_exit 0 rmem-fsx check /dev/rmem-r "$work/oracle" exact
	note "seed $seed, ${variants[variant]}: $(tail -n 1 "$work/load.log")"
	note "$((seed - first_seed + 1)) lives, $seconds s, $operations operations: $(nemeses_befell)"
	assert_exit 0 rmemctl detach r
	stop server
	rm "$work"/{file,oracle,load.log}
done
