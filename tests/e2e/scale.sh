#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What is there costs, not how much there could be: a region of 64 TiB is attached and used
# at its far end, and takes memory for two chunks. What lies in memory takes hardly more
# than its pages, rmemd sleeps when nothing is to be done, and 512 threads may wait at once.
. "$(dirname "$0")/lib.sh"

no_flusher
truncate -s 64M "$work/idle"
rmem-load make "$work/many" $((8 << 20)) 1
hosts_up
start_server "vast=mem://64TiB" "idle=file://$work/idle" "many=file://$work/many"
start_rmemd

rss() { awk '$1 == "VmRSS:" { print $2 * 1024 }' "/proc/${pids[$1]}/status"; }
available() { awk '$1 == "MemAvailable:" { print $2 * 1024 }' /proc/meminfo; }
slab() { awk '$1 == "radix_tree_node" || $1 ~ /^rmem/ { sum += $3 * $4 } END { print sum + 0 }' /proc/slabinfo; }
# What rmem takes beside pages: REGION.
overhead() { echo $(($(region "$1" module_bytes) + $(rss rmemd))); }

# --- 64 TiB
size=$((64 << 40)) last=$(((64 << 40) - 4096))
before=$(available) before_server=$(rss server) before_daemon=$(rss rmemd)
attach vast --push-interval 1h
assert_eq $size "$(region vast size_bytes)" "size"
assert_eq $size "$(stat -c %s /run/rmem/regions/vast)" "size of the file"
assert_eq 0x0 "$(rmem-load peek /dev/rmem-vast $last)" "a word never written"
assert_exit 0 rmem-load poke /dev/rmem-vast $last 7
assert_exit 0 rmem-load poke /dev/rmem-vast $((size / 2)) 8
assert_eq $((2 * 262144)) "$(region vast resident_bytes)" "resident bytes"
assert_eq 8192 "$(unsafe vast)" "bytes at risk"
assert_exit 0 rmemctl sync vast
assert_exit 0 rmemctl drop vast
assert_eq 0 "$(region vast resident_bytes)" "resident bytes after drop"
assert_eq 0x7 "$(rmem-load peek /dev/rmem-vast $last)" "the last page"
assert_eq 0x8 "$(rmem-load peek /dev/rmem-vast $((size / 2)))" "the middle"
assert_exit 0 rmemctl pull vast --range $((last - (1 << 20)))+$(((1 << 20) + 4096)) --wait
note "64 TiB: module $(region vast module_bytes), rmemd +$(($(rss rmemd) - before_daemon))," \
	"server +$(($(rss server) - before_server)), all $((before - $(available))) bytes"
assert_le "$(region vast module_bytes)" 4096 "bytes of the module"
assert_le $(($(rss rmemd) - before_daemon)) $((4 << 20)) "bytes of rmemd"
assert_le $(($(rss server) - before_server)) $((8 << 20)) "bytes of the server"
# A bit for each of its chunks would be 32 MiB.
assert_le $((before - $(available))) $((24 << 20)) "bytes of all"
assert_exit 0 rmemctl detach vast

# --- 64 MiB in memory, and nobody does anything
attach idle --read-only
before=$(overhead idle) before_slab=$(slab)
assert_exit 0 rmemctl pull idle --wait
start holder rmem-load hold /dev/rmem-idle
assert_eq $((64 << 20)) "$(region idle resident_bytes)" "resident bytes"
took=$(($(overhead idle) - before))
note "64 MiB in memory: module and rmemd $took, slabs $(($(slab) - before_slab)) bytes"
# 2 MiB for each GiB.
assert_le $((took > 0 ? took : 0)) $((128 << 10)) "bytes for 64 MiB"
assert_le $(($(slab) - before_slab)) $((128 << 10)) "bytes of slabs for 64 MiB"

switches() { awk '/ctxt_switches/ { sum += $2 } END { print sum }' "/proc/${pids[rmemd]}/status"; }
ticks() { cut -d ' ' -f 14,15 <"/proc/${pids[rmemd]}/stat" | tr ' ' +; }
wakes=$(switches) cpu=$(($(ticks)))
uptime_is begun
sleep 5
uptime_is now
wakes=$(($(switches) - wakes)) cpu=$(($(ticks) - cpu)) seconds=$((now - begun))
note "idle for $seconds s: rmemd woke $wakes times, and ran for ${cpu}0 ms"
# Two connections show every 2 s that they live: a timer, and an answer, for each.
assert_le $wakes $((3 * seconds)) "times that an idle rmemd wakes"
stop holder
assert_exit 0 rmemctl detach idle

# --- 512 who wait
attach many --read-only --chunk 16KiB
kill -STOP "${pids[server]}"
start readers bash -c 'echo ready; exec rmem-load read /dev/rmem-many 1 512'
wait_for region_is many waiting 512
kill -CONT "${pids[server]}"
wait "${pids[readers]}" || fail "the readers: $?"
unset "pids[readers]"
assert_eq 0 "$(region many waiting)" "who still waits"
assert_eq 512 "$(region many demand)" "demand faults"
assert_exit 0 rmemctl detach many
