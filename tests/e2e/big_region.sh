#!/bin/bash
# SPDX-License-Identifier: MIT
# vm: mem=320 scratch=3G
# timeout: 900, long 1800
#
# A region larger than the memory of the machine, of 352 MiB (1 GiB in the long
# form) on one with 320 MiB: every page is read and verified, written through the
# mapping, pushed, verified in the server's file, and read once more. No page is wrong
# and nobody is killed for want of memory.
. "$(dirname "$0")/lib.sh"

size=$(($(long_or 1024 352) << 20))
file=/scratch/big
lap() {
	note "$1: $((SECONDS - ${lap_start:-0})) s; resident $(region big resident_bytes), dirty $(region big dirty_bytes)"
	lap_start=$SECONDS
}
rmem-load make $file $size 1
hosts_up
start_server "big=file://$file"
start_rmemd
attach big --sync-timeout 300s --fault-timeout 300s
lap "set up"

assert_exit 0 rmem-load rewrite /dev/rmem-big 2
lap "read, verified and written"
assert_ge "$(region big fetched_bytes)" $size "fetched bytes"
assert_exit 0 rmemctl sync big
assert_clean big
assert_ge "$(region big pushed_bytes)" $size "pushed bytes"
lap "pushed"
assert_exit 0 rmem-load check $file 2
lap "verified at the server"

assert_exit 0 rmemctl drop big
assert_eq 0 "$(region big resident_bytes)" "resident bytes after drop"
assert_exit 0 rmem-load read /dev/rmem-big 2
lap "read again"
assert_eq 0 "$(region big errors)" "errors"
assert_eq 0 "$(grep -c 'oom_kill [1-9]' /proc/vmstat || true)" "OOM kills"
assert_exit 0 rmemctl detach big
