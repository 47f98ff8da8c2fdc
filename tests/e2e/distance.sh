#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Over a distance what nobody waits for travels by BBR, in both directions, if the
# kernel has it, and what somebody waits for as the system says; on a near link both do
# as the system says. Zeros are not sent at all. What is written after a pause leaves as fast
# as its window allows, and not at the rate of what was written before. The first page comes after
# one round trip, while its chunk takes the new connection several. Many pages that are missed at
# the same time do not wait for one connection to let so much go.
. "$(dirname "$0")/lib.sh"

modprobe -q tcp_bbr || true
bbr=0
! grep -qw bbr /proc/sys/net/ipv4/tcp_available_congestion_control || bbr=1

size=$((64 << 20))
truncate -s $size "$work/file"
rmem-load poke "$work/file" $((size - 4096)) 7
hosts_up
truncate -s 16M "$work/written"
dd if=/dev/urandom of="$work/first" bs=1M count=1 status=none
rmem-bench make "$work/many" --size 16MiB
start_server "near=file://$work/file" "far=file://$work/file" "written=file://$work/written" \
	"first=file://$work/first" "many=file://$work/many"
start_rmemd

# Connections of the server's side (sport) or the client's (dport) that travel so.
connections() { # srv|cli CONGESTION-CONTROL
	local side=sport
	[[ $1 == srv ]] || side=dport
	ip netns exec "$1" ss -Htin state established $side = :7070 | grep -cE "^\s+$2 " || true
}

# An emulated machine may take long over a handshake, and then it is a far one.
near_is_as_the_system_says() {
	local by_bbr
	attach near --read-only
	wait_for at_least 2 daemon_says near lanes
	by_bbr=$(connections srv bbr)
	assert_exit 0 rmemctl detach near
	((by_bbr == 0))
}
wait_for near_is_as_the_system_says

in_srv tc qdisc add dev srv0 root netem delay 10ms
attach far --read-only
wait_for at_least 2 daemon_says far lanes
assert_eq $bbr "$(connections srv bbr)" "connections by BBR, of the server"
assert_eq $bbr "$(connections cli bbr)" "connections by BBR, of the client"
usual=$(</proc/sys/net/ipv4/tcp_congestion_control)
assert_eq $((2 - bbr)) "$(connections srv "$usual")" "connections by $usual"

received() { in_cli awk '$1 == "cli0:" { print $2 }' /proc/net/dev; }
before=$(received)
assert_exit 0 rmemctl pull far --wait
assert_eq $size "$(region far resident_bytes)" "bytes in memory"
came=$(($(received) - before))
note "$came bytes came for $size"
assert_le $came $((size / 16)) "bytes that came for zeros"
assert_eq 0x7 "$(rmem-load peek /dev/rmem-far $((size - 4096)))" "the word that is there"
cmp "$work/file" /run/rmem/regions/far
assert_exit 0 rmemctl detach far

in_srv tc qdisc replace dev srv0 root netem delay 500ms
begun=$(date +%s%3N)
attach first
attached=$(date +%s%3N)
rmem-load peek /dev/rmem-first 0 >/dev/null
took=$(($(date +%s%3N) - attached))
note "attached after $((attached - begun)) ms, the first page came $took ms later"
assert_le "$took" 1500 "ms until the first page, of which a round trip takes 500"
cmp "$work/first" /run/rmem/regions/first
assert_exit 0 rmemctl detach first

# Of 64 threads, all together, in ms.
burst() { # ARG...
	rmem-bench run --peer none --region /dev/rmem-many --size 16MiB --case random-64 --rounds 1 --tsv "$work/many.tsv" \
		"$@" >"$work/many.txt"
	awk -F'\t' '$1 == "rmem:many" { print int($3 * $4 / 1e6) }' "$work/many.tsv"
}
attach many --read-only --chunk 4KiB
wait_for at_least 2 daemon_says many lanes
one=$(burst --no-warm-up)
wait_for at_least 9 daemon_says many lanes
eight=$(burst --no-warm-up)
note "64 pages by a new connection after $one ms, by eight after $eight"
assert_le $((3 * eight)) $((2 * one)) "three times what 64 pages take by eight connections, in ms"
assert_exit 0 rmemctl detach many

in_srv tc qdisc replace dev srv0 root netem delay 10ms
((bbr)) || exit 0
# The client's bulk connection: BBR's gain in per cent, and the KiB that it may send within a
# round trip.
pace() {
	in_cli ss -Htin state established dport = :7070 | awk '$1 == "bbr" {
		for (i = 1; i < NF; i++) {
			if ($i == "pacing_rate") { rate = $(i + 1) + 0; unit = $(i + 1) }
			if ($i ~ /^rtt:/) ms = substr($i, 5) + 0
		}
		rate *= unit ~ /Gbps/ ? 1e9 : unit ~ /Mbps/ ? 1e6 : unit ~ /Kbps/ ? 1e3 : 1
		match($0, /pacing_gain:[0-9.]*/)
		print int(substr($0, RSTART + 12, RLENGTH - 12) * 100), int(rate / 8 * ms / 1000 / 1024)
	}'
}
attach written
wait_for at_least 2 daemon_says written lanes
for ((i = 0; i < 8; i++)); do
	# The answer to the fsync takes a round trip, in which nothing is sent: the pause.
	dd if=/dev/urandom of=/run/rmem/regions/written bs=1M count=1 seek=$i conv=notrunc,fsync status=none
done
read -r gain kib < <(pace)
note "$kib KiB within a round trip, gain $gain %"
# BBR by itself: 2.9 times what came in the last round trip and burst, here 1.2 MiB. On a slow
# host it may have found the limit, which is the host.
((gain < 200)) || assert_ge "$kib" 2048 "KiB within a round trip, after bursts of 1 MiB"
cmp "$work/written" /run/rmem/regions/written
assert_exit 0 rmemctl detach written
