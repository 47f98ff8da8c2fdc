#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The disk below the server's sparse file is full: fsync, msync and sync say
# ENOSPC, the pages stay dirty and readable. Space comes back: they are pushed.
. "$(dirname "$0")/lib.sh"

mkdir "$work/disk"
mount -t tmpfs -o size=1m tmpfs "$work/disk"
on_exit() { umount -l "$work/disk"; }

hosts_up
start_server "r=file://$work/disk/file?size=4MiB" "other=mem://1MiB"
start_rmemd
attach r --chunk 64KiB --sync-timeout 60s --push-interval 1h
attach other

assert_exit 0 rmem-load poke /dev/rmem-r 0 1 fsync
head -c 1M /dev/zero >"$work/disk/filler" 2>/dev/null || true
assert_exit 0 rmem-load write /dev/rmem-r 5

assert_exit 28 rmem-load fsync /dev/rmem-r
assert_eq "fsync: No space left on device" "$out" "fsync"
assert_exit 28 rmem-load poke /run/rmem/regions/r 0 1 msync
assert_error 1 "r.*(No space|full)" rmemctl sync r
assert_ge "$(unsafe r)" $((3 << 20)) "bytes that are not durable"
assert_eq active "$(region r state)" "state"
assert_ge "$(region r errors)" 1 "errors"
assert_error 1 "r.*(No space|full)" rmemctl detach r

# Nobody has lost anything, nobody else is hurt.
assert_exit 0 rmem-load poke /dev/rmem-other 0 3 fsync
assert_exit 0 rmem-load write /dev/rmem-r 6
assert_exit 0 rmemctl drop r
assert_exit 0 rmem-load read /dev/rmem-r 6
assert_exit 28 rmem-load fsync /dev/rmem-r

rm "$work/disk/filler"
mount -o remount,size=16m "$work/disk"
assert_exit 0 rmemctl sync r
assert_clean r
assert_exit 0 rmem-load check "$work/disk/file" 6
assert_exit 0 rmemctl drop r
assert_exit 0 rmem-load read /dev/rmem-r 6
assert_exit 0 rmemctl detach r
