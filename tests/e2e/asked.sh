#!/bin/bash
# SPDX-License-Identifier: MIT
# timeout: 300
#
# Whoever misses a page asks the server for it and takes the answer by himself: the page
# is there while rmemd stands still. Every isolated miss goes that way, by chunks of
# all sizes. What is written, pushed, dropped and asked for again at random is never
# an old page, also when the page lane, the server or rmemd goes in the middle.
. "$(dirname "$0")/lib.sh"

size=$((16 << 20))
rmem-load make "$work/file" $size 7
rmem-load make "$work/written" $size 0
hosts_up
serve() { start_server "file=file://$work/file" "written=file://$work/written"; }
serve
start_rmemd
attach file --read-only --chunk 4KiB
assert_exit 0 rmemctl attach large rmem://$SRV4/file --insecure --read-only --chunk 64KiB
assert_exit 0 rmemctl attach written rmem://$SRV4/written --insecure --chunk 4KiB \
	--fault-timeout 120s --sync-timeout 120s

# Of a region: fetches that the tasks who wait have asked for; that they took the answer to.
asked() { sed -n "s/^$1 id=.* asked=\([0-9]*\).*/\1/p" /sys/kernel/debug/rmem/regions; }
answered() { sed -n "s/^$1 id=.* answered=\([0-9]*\).*/\1/p" /sys/kernel/debug/rmem/regions; }
lanes() { in_srv ss -Hnt state established sport = :7070 | wc -l; }
peek() { assert_eq "$(printf '0x%x' $(($2 / 4096)))" "$(rmem-load peek /dev/rmem-$1 $2)" "$1 at $2"; }

# lent NAME: a page that is not here is asked for by who waits.
lent() {
	rmemctl drop "$1"
	rmem-load peek "/dev/rmem-$1" $((15 << 20))
	(($(asked "$1")))
}
# From 2 ms on rmemd asks for a large chunk, whose page comes first; so far away from itself
# is an instrumented kernel on a busy host.
far() {
	[[ $1 == large ]] && in_cli ss -Hnti dport = :7070 | grep -o 'minrtt:[0-9.]*' |
		awk -F: '$2 >= 2 { far = 1 } END { exit !far }'
}
lent_or_far() { lent "$1" || far "$1"; }
wait_for at_least 6 lanes
for name in file large; do
	wait_for lent_or_far $name
	if far $name; then
		note "$name: too far to be lent"
		continue
	fi
	# Far enough apart and backwards: no reader to read ahead for.
	before=$(asked $name) demand=$(region $name demand)
	for ((i = 12; i > 2; i--)); do
		peek $name $(((i << 20) + ((i % 3) << 16)))
	done
	assert_eq 10 $(($(region $name demand) - demand)) "demand faults of $name"
	assert_eq 10 $(($(asked $name) - before)) "of them asked by who waits"
	assert_ge "$(answered $name)" 8 "of them whose answer who waits took"

	# Unless it has just pinged: then it is rmemd who receives.
	for ((try = 0; try < 5; try++)); do
		at=$(((1 << 20) + (try << 16))) before=$(answered $name)
		kill -STOP "${pids[rmemd]}"
		page=$(timeout 10 rmem-load peek /dev/rmem-$name $at) || page=
		kill -CONT "${pids[rmemd]}"
		[[ ! $page ]] || break
	done
	assert_eq "$(printf '0x%x' $((at / 4096)))" "$page" "$name at $at, without rmemd"
	assert_eq $((before + 1)) "$(answered $name)" "answers taken by who waits"
	assert_exit 0 rmem-load read /dev/rmem-$name 7
	cmp "$work/file" /run/rmem/regions/$name
	assert_eq 0 "$(region $name errors)" "errors"
done

start load rmem-load run /dev/rmem-written "$work/oracle" 2 4
for ((i = 0; i < 16; i++)); do
	sleep 0.7
	case $i in
	4 | 10) in_cli ss -K dst $SRV4 dport = :7070 >/dev/null ;;
	7) stop server KILL && serve ;;
	13) stop rmemd KILL && start_rmemd ;;
	*)
		rmemctl sync written && rmemctl drop written || note "round $i: not now"
		;;
	esac
	alive load || fail "the load ended: $(<"$work/load.log")"
done
stop load
assert_eq 0 "$status" "status of the load"
note "$(tail -n 1 "$work/load.log"); asked $(asked written) of $(region written demand) demand faults"
assert_ge $((2 * $(asked written))) "$(region written demand)" "twice the fetches asked by who waits"
assert_eq 0 "$(region written waiting)" "who still waits"
assert_eq 0 "$(region written errors)" "errors"
assert_exit 0 rmemctl sync written
assert_exit 0 rmem-load compare "$work/written" "$work/oracle" exact
for name in file large written; do
	assert_exit 0 rmemctl detach $name
done
