#!/bin/bash
# SPDX-License-Identifier: MIT
# timeout: 600
#
# On a slow link in clear, what can be made shorter travels so, in both directions, and
# what cannot goes as it is; either side may forbid it. Every byte is the same.
. "$(dirname "$0")/lib.sh"

size=$((16 << 20))
seq -f 'line %.0f of a text that says much the same as all the others' 300000 >"$work/text"
truncate -s $size "$work/text"
head -c $((size / 4)) /dev/urandom >"$work/noise"
truncate -s $size "$work/written"
exports=("text=file://$work/text" "noise=file://$work/noise" "written=file://$work/written")
hosts_up
start_server "${exports[@]}"
start_rmemd
in_srv tc qdisc replace dev srv0 root netem rate 20mbit delay 2ms
in_cli tc qdisc replace dev cli0 root netem rate 20mbit delay 2ms

received() { in_cli awk '$1 == "cli0:" { print $2 }' /proc/net/dev; }
sent() { in_cli awk '$1 == "cli0:" { print $10 }' /proc/net/dev; }
saved() { daemon_says "$1" compression_saved_bytes; }
pulled() { # NAME: bytes that came, in $came
	local before began
	attach "$1" --read-only --chunk 256KiB
	before=$(received)
	began=${EPOCHREALTIME/[.,]/}
	assert_exit 0 rmemctl pull "$1" --wait
	took=$(((${EPOCHREALTIME/[.,]/} - began) / 1000))
	came=$(($(received) - before))
	note "$1: $came bytes came for $(stat -c %s "$work/$1") in $took ms, saved $(saved "$1")"
	cmp "$work/$1" "/run/rmem/regions/$1"
}

note "what can be made shorter"
pulled text
assert_le $came $((size / 2)) "bytes that came"
assert_ge "$(saved text)" $((size / 2)) "bytes saved"
assert_eq "$(saved text)" "$(rmemctl status text --json | grep -o '"compression_saved_bytes": *[0-9]*' | grep -o '[0-9]*$')" "in the status"
assert_exit 0 rmemctl detach text

note "what cannot"
pulled noise
assert_le "$(saved noise)" $((size / 64)) "bytes saved"
assert_exit 0 rmemctl detach noise

note "written"
attach written --chunk 256KiB --sync-timeout 120s
before=$(sent)
dd if="$work/text" of=/run/rmem/regions/written bs=1M conv=notrunc status=none
assert_exit 0 rmemctl sync written
went=$(($(sent) - before))
note "$went bytes went for $size, saved $(saved written)"
cmp "$work/text" "$work/written"
assert_le $went $((size / 2)) "bytes that went"
assert_exit 0 rmemctl detach written

note "forbidden here"
stop rmemd
start_rmemd --compress off
pulled text
assert_eq 0 "$(saved text)" "bytes saved"
assert_ge $came $size "bytes that came"
assert_exit 0 rmemctl detach text

note "forbidden there"
stop rmemd
stop server
in_srv start server rmem-server --listen "tcp://$SRV4:7070" --insecure --state-dir "$work/state" \
	--no-compress --export "${exports[0]}"
start_rmemd --compress zstd
pulled text
assert_eq 0 "$(saved text)" "bytes saved"
assert_exit 0 rmemctl detach text
