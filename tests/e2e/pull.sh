#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Pulled ahead of use: a range, then all; nobody waits for it afterwards, and what
# is there already is not fetched again. A pull outlives the loss of the server.
. "$(dirname "$0")/lib.sh"

size=$((64 << 20))
rmem-load make "$work/file" $size 1
hosts_up
start_server "f=file://$work/file"
start_rmemd
attach f --chunk 64KiB

assert_error 2 "OFFSET.LENGTH" rmemctl pull f --range 4096
assert_error 2 "leaves" rmemctl pull f --range 64MiB+1
assert_error 3 "none" rmemctl pull none
assert_exit 0 rmemctl pull f --range 8MiB+4MiB --wait
assert_eq '' "$out$err" "output where no terminal is"
assert_eq $((4 << 20)) "$(region f fetched_bytes)" "fetched bytes"
assert_eq 0 "$(region f demand)" "waits"
assert_exit 0 rmem-load peek /dev/rmem-f $((8 << 20))
assert_exit 0 rmem-load peek /dev/rmem-f $(((12 << 20) - 4096))
assert_eq 0 "$(region f demand)" "waits for what was pulled"

assert_exit 0 rmemctl pull f --wait
assert_eq $size "$(region f fetched_bytes)" "fetched bytes"
assert_exit 0 rmem-load read /dev/rmem-f 1
assert_eq 0 "$(region f demand)" "waits for what was pulled"
assert_eq $size "$(region f fetched_bytes)" "fetched bytes after reading"

# In the background, across a restart of the server.
assert_exit 0 rmemctl drop f
stop server KILL
assert_exit 0 rmemctl pull f
wait_for region_is f state degraded
start_server "f=file://$work/file"
resident() { region f resident_bytes; }
wait_for at_least $size resident
assert_exit 0 rmem-load read /dev/rmem-f 1

# Written pages are not overwritten by what is pulled.
assert_exit 0 rmemctl drop f
assert_exit 0 rmem-load poke /dev/rmem-f $((1 << 20)) 77
assert_exit 0 rmemctl pull f --wait
assert_eq 0x4d "$(rmem-load peek /dev/rmem-f $((1 << 20)))" "a written word"
assert_exit 0 rmemctl detach f
