# shellcheck shell=bash disable=SC2154 # what lib.sh has
# SPDX-License-Identifier: MIT
#
# Does something grow with use? For tests that source it behind lib.sh and say
# how all comes to rest before it is counted:
#
#   settle() { wait_for ...; }
#   in_halves CYCLES COMMAND...

# khugepaged fills up a daemon's memory to whole huge pages some day, by megabytes.
thp=/sys/kernel/mm/transparent_hugepage/enabled
thp_was=$(sed 's/.*\[\(.*\)\].*/\1/' $thp)
echo never >$thp
no_growth_ends() { echo "$thp_was" >$thp; }

# What may grow: name and number, a line each. Slabs as objects of each cache, so
# that one small object a cycle shows; what caches keep for later is given back
# first.
inventory() {
	settle
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
