#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Who reads in sequence waits a few times only, since what comes next is fetched
# ahead; who looks here and there fetches little more than that.
. "$(dirname "$0")/lib.sh"

chunk=$((64 << 10))
size=$((16 << 20)) page=0
rmem-load make "$work/file" $size 1
hosts_up
start_server "f=file://$work/file,ro"
start_rmemd
attach f --read-only --chunk 64KiB

assert_exit 0 rmem-load read /dev/rmem-f 1
assert_eq $size "$(region f fetched_bytes)" "fetched bytes"
demanded=$(demand_fetches f)
note "$((size / chunk)) chunks in sequence: $demanded demand fetches, $(region f demand) waits"
assert_le "$demanded" $((size / chunk / 8)) "demand fetches of a sequential reader"

assert_exit 0 rmemctl drop f
before=$(region f fetched_bytes)
for ((i = 0; i < 8; i++)); do
	random page $((size / 4096))
	assert_eq "$(printf '0x%x' "$page")" "$(rmem-load peek /dev/rmem-f $((page * 4096)))" "page $page"
done
fetched=$(($(region f fetched_bytes) - before))
note "8 pages here and there: $((fetched / chunk)) chunks fetched"
assert_le $fetched $((8 * chunk)) "bytes fetched for 8 pages"
