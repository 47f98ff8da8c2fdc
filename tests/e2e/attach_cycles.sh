#!/bin/bash
# SPDX-License-Identifier: MIT
# timeout: 400, long 7200
#
# Attach, use, detach, a thousand times: nothing is left in the kernel's slabs,
# in either daemon's descriptors and memory, among mounts, nodes and devices.
# Then the module goes and comes back, two hundred times, with the same result.
. "$(dirname "$0")/lib.sh"

attaches=$(long_or 1000 40) loads=$(long_or 200 5)
module=$(modinfo -F filename rmem 2>/dev/null || echo "$tests/../build/kmod/$(uname -r)/rmem.ko")

# khugepaged fills up a daemon's memory to whole huge pages some day, by megabytes.
thp=/sys/kernel/mm/transparent_hugepage/enabled
thp_was=$(sed 's/.*\[\(.*\)\].*/\1/' $thp)
echo never >$thp
on_exit() {
	echo "$thp_was" >$thp
	[[ -d /sys/module/rmem ]] || insmod "$module"
}

rmem-load make "$work/file" $((1 << 20)) 1
hosts_up
start_server "r=file://$work/file"

# No end of a connection is left open, by the daemon or by the server.
unconnected() { [[ ! $(in_srv ss -Hnt sport = :7070)$(in_cli ss -Hnt dport = :7070) ]]; }

# What may grow: name and number, a line each. Slabs as objects of each cache, so
# that one small object a cycle shows; what caches keep for later is given back
# first.
inventory() {
	wait_for unconnected
	sleep 2 # what RCU frees
	echo 3 >/proc/sys/vm/drop_caches
	for cache in /sys/kernel/slab/*/shrink; do
		echo 1 >"$cache" 2>/dev/null || true
	done
	awk 'NR > 2 { print "slab:" $1, $2 }' /proc/slabinfo
	awk '/^SUnreclaim:/ { print "slab_kib", $2 } /^Percpu:/ { print "percpu_kib", $2 }' /proc/meminfo
	echo "vmallocs $(grep -c '\[rmem\]' /proc/vmallocinfo || true)"
	echo "mounts $(wc -l </proc/self/mountinfo)"
	echo "nodes $(find /dev /run/rmem -name 'rmem*' -o -path '*regions/*' | wc -l)"
	echo "bdis $(find /sys/class/bdi -mindepth 1 | wc -l)"
	for name in "${!pids[@]}"; do
		echo "${name}_fds $(find "/proc/${pids[$name]}/fd" -mindepth 1 | wc -l)"
		echo "${name}_kib $(awk '/^RssAnon:/ { print $2 }' "/proc/${pids[$name]}/status")"
	done
}

# growth CYCLES: what is left of them, a line each. What rmem alone makes is no more
# than it was; what it shares with the rest of the system, or keeps for later, has not
# grown with the cycles. A leak grows in each half of them; what was needed for the
# first time grows once.
growth() {
	local cycles=$1 name was is more most
	while read -r name was is more; do
		[[ $name == slab:* ]] || note "after $cycles: $name $was -> $is, $more in the better half" >&3
		case $name in
		slab:vmap_area) continue ;; # freed late; vmallocs has those of rmem
		slab:*) most=$((150 + cycles / 4)) ;;
		*_kib) most=$((128 + cycles / 8)) ;;
		*) most=0 more=$((is - was)) ;;
		esac
		((more <= most)) || echo "$name: $was -> $is in $cycles cycles, $more in the better half of them"
	done < <(awk 'FILENAME ~ /before$/ { was[$1] = $2; next }
		FILENAME ~ /between$/ { half[$1] = $2; next }
		{ a = half[$1] - was[$1]; b = $2 - half[$1]; print $1, was[$1] + 0, $2, a < b ? a : b }' \
		"$work/before" "$work/between" "$work/after")
}

# Much is freed a moment after its last use; a leak is still there when asked again.
nothing_left() { # CYCLES
	inventory >"$work/after"
	growth "$1" >"$work/left" 3>"$work/counts"
	[[ ! -s $work/left ]]
}

# in_halves CYCLES COMMAND... : with an inventory before, between and after.
in_halves() {
	local cycles=$1 i began=$SECONDS
	shift
	inventory >"$work/before"
	for ((i = 0; i < cycles; i++)); do
		((i != cycles / 2)) || inventory >"$work/between"
		"$@"
	done
	note "$cycles cycles in $((SECONDS - began)) s"
	for i in {1..5}; do
		! nothing_left "$cycles" || break
	done
	cat "$work/counts"
	[[ ! -s $work/left ]] || fail "$(<"$work/left")"
}

cycle() {
	attach r --chunk 64KiB
	assert_exit 0 rmem-load poke /dev/rmem-r $((RANDOM % 128 * 8192)) 5
	assert_exit 0 rmem-load peek /run/rmem/regions/r 4096
	assert_exit 0 rmemctl detach r
}

note "attach and detach"
start_rmemd
# The first ones fill caches and pools.
for ((i = 0; i < 10; i++)); do
	cycle
done
in_halves "$attaches" cycle
stop rmemd

note "load and unload"
load() {
	rmmod rmem || fail "rmmod"
	insmod "$module" || fail "insmod"
}
for ((i = 0; i < 3; i++)); do
	load
done
loaded=0
load_and_now_and_then_use() {
	load
	# With something to take down each tenth time.
	((loaded++ % 10)) && return
	start_rmemd
	cycle
	stop rmemd
}
in_halves "$loads" load_and_now_and_then_use
