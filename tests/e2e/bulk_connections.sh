#!/bin/bash
# SPDX-License-Identifier: MIT
# timeout: 240
#
# Over a distance, where the system has no BBR and packets get lost, several connections share
# what is read ahead and what is written, and are faster than one. When one of them breaks, all
# is connected anew, and no byte is wrong.
. "$(dirname "$0")/lib.sh"

on_exit() { rm -f /etc/modprobe.d/rmem-test.conf; }
echo "install tcp_bbr /bin/false" >/etc/modprobe.d/rmem-test.conf
! grep -q '^tcp_bbr ' /proc/modules || wait_for rmmod tcp_bbr

size=$((8 << 20))
file=$work/file
rmem-load make "$file" $size 1
hosts_up
for ns in srv cli; do
	ip -n $ns link set dev ${ns}0 gso_max_size 1500 gso_max_segs 1
	ip netns exec $ns tc qdisc add dev ${ns}0 root netem delay 12ms loss 0.5% limit 10000
done
start_server "r=file://$file"

# lap NAME: what it took since the last one, in ms.
lap() { # NAME
	local now
	now=$(date +%s%3N)
	took[$1]=$((now - lap_start))
	note "$1: ${took[$1]} ms, lanes $(daemon_says r lanes)"
	lap_start=$now
}
declare -A took
read_and_write() { # BULK-CONNECTIONS LANES GENERATION
	lap_start=$(date +%s%3N)
	assert_exit 0 rmemctl pull r --wait
	lap "read by $1"
	assert_exit 0 rmem-load check /dev/rmem-r "$3"
	lap_start=$(date +%s%3N)
	assert_exit 0 rmem-load rewrite /dev/rmem-r $(($3 + 1))
	assert_exit 0 rmemctl sync r
	lap "written by $1"
	assert_exit 0 rmem-load check "$file" $(($3 + 1))
	assert_eq "$2" "$(daemon_says r lanes)" "lanes"
}

start_rmemd --bulk-connections 1
attach r --sync-timeout 120s
read_and_write one 2 1
assert_exit 0 rmemctl detach r
stop rmemd

start_rmemd
attach r --sync-timeout 120s
read_and_write eight 9 2
for what in "read by" "written by"; do
	assert_ge $((2 * ${took[$what one]})) $((3 * ${took[$what eight]})) "twice what one took to be $what, in ms"
done

# Any of those that the client has but the first two.
assert_exit 0 rmemctl drop r
said=$(($(wc -l <"$work/rmemd.log") + 1))
rmemctl pull r >/dev/null
port=$(in_cli ss -Htn state established dport = :7070 | awk '{ sub(/.*:/, "", $3); print $3 }' | sort -n | tail -n 1)
assert_exit 0 in_cli ss -K state established sport = ":$port"
assert_exit 0 rmem-load rewrite /dev/rmem-r 4
assert_exit 0 rmemctl sync r
assert_match 'region r: .*reached' "$(tail -n +"$said" "$work/rmemd.log")" "what rmemd says"
assert_exit 0 rmem-load check "$file" 4
assert_exit 0 rmemctl detach r
