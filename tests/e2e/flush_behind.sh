#!/bin/bash
# SPDX-License-Identifier: MIT
#
# An fsync costs one way there and one back: its flush follows the writes without
# waiting for their answers. Without any answer nothing counts as durable.
. "$(dirname "$0")/lib.sh"

no_flusher
hosts_up
start_server "f=stats+file://$work/file?size=16MiB"
start_rmemd
attach f --push-interval 1h --sync-timeout 120s

# done OPERATION: so many of them, by the server's stats filter.
done_there() {
	local before
	before=$(grep -c 'stats: .*: flush:' "$work/server.log" || true)
	kill -USR1 "${pids[server]}"
	wait_for at_least $((before + 1)) grep -c 'stats: .*: flush:' "$work/server.log"
	sed -n "s/.*stats: .*: $1: \([0-9]*\) done, 0 failed.*/\1/p" "$work/server.log" | tail -n 1
}
grown() { (($(done_there "$1") > $2)); }
flushed_or_lost() { grown flush "$1" || ! region_is f state active; }

# What the server says gets lost. On a slow machine the connection may, too.
word=0
flushed_unanswered() {
	local flushes syncing result=0
	wait_for region_is f state active
	assert_exit 0 rmem-load poke /dev/rmem-f 8192 $((++word))
	flushes=$(done_there flush)
	in_srv tc qdisc add dev srv0 root netem loss 100%
	rmemctl sync f &
	syncing=$!
	wait_for flushed_or_lost "$flushes"
	grown flush "$flushes" || result=1
	(($(unsafe f) > 0)) || fail "durable without an answer"
	in_srv tc qdisc del dev srv0 root
	wait $syncing || fail "the sync has failed"
	assert_eq 0 "$(unsafe f)" "bytes that are not durable"
	return $result
}
wait_for flushed_unanswered

# Near as it is, hardly more of them than fsyncs.
flushes=$(daemon_says f store_flushes)
for _ in 1 2 3; do
	head -c 1M /dev/urandom >"$work/data"
	dd if="$work/data" of=/dev/rmem-f bs=1M conv=notrunc status=none
	assert_exit 0 rmemctl sync f
	cmp -n $((1 << 20)) "$work/data" "$work/file"
done
note "$(($(daemon_says f store_flushes) - flushes)) flushes for 3 fsyncs of 1 MiB"
assert_exit 0 rmemctl detach f
