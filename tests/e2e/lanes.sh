#!/bin/bash
# SPDX-License-Identifier: MIT
# timeout: 400
#
# A page fault does not wait behind what a pull has under way on a slow link, since
# it travels on a connection of its own. What either connection loses is asked for
# again; as long as the bulk lane is there, nobody notices more than that.
. "$(dirname "$0")/lib.sh"

size=$((96 << 20)) chunk=$((256 << 10)) page=0
rmem-load make "$work/file" $size 7
hosts_up
start_server "f=file://$work/file"
# Those two alone, also where a slow host is taken for a far one.
start_rmemd --bulk-connections 1 --page-connections 1
attach f --read-only

# The client's port of each connection that there ever was.
ports() { sed -n "s/.* $CLI4:\([0-9]*\) .*: opened .*/\1/p" "$work/server.log"; }
opened() { ports | wc -l; }
cut() { in_cli ss -K dst $SRV4 sport = :"$1" >/dev/null; }
fetched() { region f fetched_bytes; }

wait_for at_least 2 daemon_says f lanes

# 1 MB/s; the pull has up to 48 chunks, twelve seconds' worth, asked for at a time.
in_srv tc qdisc add dev srv0 root tbf rate 8mbit burst 64kb latency 50ms
assert_exit 0 rmemctl pull f
wait_for at_least $((2 << 20)) fetched
# What came between the asking for a chunk and its bytes, in chunks.
trace=/sys/kernel/tracing
on_exit() { echo 0 >$trace/events/rmem/enable; }
came_before() { # OFFSET
	awk -v chunk=" offset=$1 " '/rmem_request_sent:/ && index($0, chunk) { asked = 1 }
		asked && /rmem_request_done:/ { if (index($0, chunk)) { print n + 0; exit } n++ }' $trace/trace
}
echo 1 >$trace/events/rmem/rmem_request_sent/enable
echo 1 >$trace/events/rmem/rmem_request_done/enable
most=0
for ((i = 0; i < 3; i++)); do
	# Out of the last quarter, where the pull is not yet.
	random page $((size / 4096 / 4))
	page=$((size / 4096 / 4 * 3 + page))
	echo >$trace/trace
	assert_eq "$(printf '0x%x' $page)" "$(rmem-load peek /dev/rmem-f $((page * 4096)))" "page $page"
	moved=$(came_before $((page * 4096 / chunk * chunk)))
	note "page $page came after ${moved:?} chunks"
	((moved <= most)) || most=$moved
done
on_exit
# Else that was no load. What the pull had under way did not come in between, which
# would be 48 chunks.
assert_le "$(fetched)" $((size / 4 * 3)) "fetched by the pull meanwhile"
assert_le $most 20 "chunks that came before a page"

# The cable of one lane. A reader, the pull and everything else go on.
rmem-load read /dev/rmem-f 7 & reader=$!
bulk=0 # index of port; the page lane is what was opened last, as a slow host may give one up
for lane in page bulk page; do
	mapfile -t port < <(ports)
	before=$(fetched) last=${#port[@]}
	if [[ $lane == page ]]; then
		cut "${port[-1]}"
		wait_for at_least $((last + 1)) opened
	else
		cut "${port[bulk]}"
		wait_for at_least $((last + 2)) opened
		bulk=$last
	fi
	wait_for at_least 2 daemon_says f lanes
	wait_for at_least $((before + 1)) fetched
	assert_eq active "$(region f state)" "state"
done
# Once, by the bulk lane.
assert_eq 1 "$(grep -c ": lost: " "$work/rmemd.log")" \
	"losses that rmemd has seen"
in_srv tc qdisc del dev srv0 root
wait $reader || fail "a reader failed"
assert_eq 0 "$(region f errors)" "errors"
cmp "$work/file" /run/rmem/regions/f
assert_exit 0 rmemctl detach f
