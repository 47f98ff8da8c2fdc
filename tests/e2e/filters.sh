#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Filters on exports, on local stores and on remote ones: errors reach the
# program, delays and caches change nothing but time, stats tell the truth.
. "$(dirname "$0")/lib.sh"

# The reads that the server's stats filter has counted so far.
server_reads() {
	local before
	before=$(grep -c 'stats: .*: flush:' "$work/server.log" || true)
	kill -USR1 "${pids[server]}"
	wait_for at_least $((before + 1)) grep -c 'stats: .*: flush:' "$work/server.log"
	sed -n 's/.*stats: .*: read: \([0-9]*\) done, 0 failed.*/\1/p' "$work/server.log" | tail -n 1
}

hosts_up
start_server "good=delay+stats+mem://1MiB?delay.read=1ms-20ms&delay.flush=50ms" \
	"bad=error+dir://$work/store?size=1MiB&error.write=1&error.errno=ENOSPC"
start_rmemd

attach good
assert_exit 0 rmem-load write /dev/rmem-good 1
assert_exit 0 rmemctl sync good
assert_exit 0 rmemctl drop good
assert_exit 0 rmem-load read /dev/rmem-good 1
assert_exit 0 rmemctl detach good

# The second time it comes out of rmemd's memory.
cached="cache+rmem://$SRV4/good?cache.size=2MiB"
assert_exit 0 rmemctl attach cached "$cached" --insecure
assert_exit 0 rmem-load read /dev/rmem-cached 1
reads=$(server_reads)
assert_ge "$reads" 1 "reads at the server"
assert_exit 0 rmemctl drop cached
assert_exit 0 rmem-load read /dev/rmem-cached 1
assert_eq "$reads" "$(server_reads)" "reads at the server, with what is cached"
assert_exit 0 rmem-load write /dev/rmem-cached 2
assert_exit 0 rmemctl sync cached
assert_exit 0 rmemctl drop cached
assert_exit 0 rmem-load read /dev/rmem-cached 2
assert_exit 0 rmemctl detach cached

# Writing fails, and fsync says why.
attach bad
assert_exit 28 rmem-load poke /dev/rmem-bad 8 77 fsync

# Only root may spend the daemon's memory; what is wrong is named.
assert_error 4 'only root' setpriv --reuid 65534 --regid rmem --clear-groups \
	rmemctl attach cached "$cached" --insecure
assert_error 2 'cache.sise' rmemctl attach cached "cache+rmem://$SRV4/good?cache.sise=1MiB"
assert_error 2 'error.read' rmemctl attach cached "error+file://$work/x?error.read=2"

# On a local store, with rmemd telling at its end.
assert_exit 0 rmemctl attach local "stats+file://$work/file?size=64KiB"
assert_exit 0 rmem-load write /dev/rmem-local 1
assert_exit 0 rmemctl sync local
stop rmemd
assert_match "stats: file://$work/file\?size=64KiB: flush: [1-9]" "$(<"$work/rmemd.log")" "rmemd's log"
start_rmemd
assert_exit 0 rmemctl detach local
