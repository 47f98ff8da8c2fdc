#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: mem=1536
# timeout: 300, long 3600
#
# A thousand regions at once, each with a page of its own written: all of them
# work and are told apart, also by a daemon that was killed and came back. What
# that costs is said.
. "$(dirname "$0")/lib.sh"

regions=$(long_or 1000 50) size=65536
args=()
mkdir "$work/files"
for ((i = 0; i < regions; i++)); do
	truncate -s $size "$work/files/r$i"
	args+=("r$i=file://$work/files/r$i")
done
ulimit -n 8192 # the server has a file each
hosts_up
start_server "${args[@]}"
start_rmemd

available_kib() { awk '/^MemAvailable:/ { print $2 }' /proc/meminfo; }
rss_kib() { awk '/^VmRSS:/ { print $2 }' "/proc/${pids[$1]}/status"; }
free=$(available_kib) daemon=$(rss_kib rmemd) server=$(rss_kib server) began=${EPOCHREALTIME/[.,]/}
for ((i = 0; i < regions; i++)); do
	attach r$i --chunk 4KiB
done
took=$((${EPOCHREALTIME/[.,]/} - began))
note "$regions regions: $((took / regions)) us each to attach (one rmemctl each);" \
	"$(((free - $(available_kib)) / regions)) KiB of memory each, of them" \
	"$((($(rss_kib rmemd) - daemon) / regions)) KiB of rmemd, $((($(rss_kib server) - server) / regions)) KiB of rmem-server"

began=${EPOCHREALTIME/[.,]/}
assert_exit 0 rmemctl status --json
note "status of all: $(((${EPOCHREALTIME/[.,]/} - began) / 1000)) ms"
states() { rmemctl status --json | grep -o '"state":"[a-z]*"' | sed 's/.*:"\(.*\)"/\1/' | sort | uniq -c | xargs; }
assert_eq "$regions active" "$(states)" "states"

for ((i = 0; i < regions; i++)); do
	assert_exit 0 rmem-load poke /dev/rmem-r$i $((i % 8 * 8192)) $((i + 1))
done
stop rmemd KILL
assert_eq "$regions quiesced" "$(states)" "states without a daemon"
began=${EPOCHREALTIME/[.,]/}
start_rmemd
all_active() { [[ $(states) == "$regions active" ]]; }
wait_for -t $((60 + regions)) all_active # each of them keeps two connections alive
note "served again by a new rmemd: $(((${EPOCHREALTIME/[.,]/} - began) / 1000)) ms"

for ((i = 0; i < regions; i++)); do
	assert_exit 0 rmemctl detach r$i
	assert_eq $((i + 1)) "$(od -An -tu8 -j $((i % 8 * 8192)) -N8 "$work/files/r$i" | tr -d ' ')" "word of r$i"
done
assert_exit 0 rmemctl status --json
assert_eq '{"schema":1,"regions":[]}' "${out// /}" "status without regions"
