#!/bin/bash
# SPDX-License-Identifier: MIT
# timeout: 300
#
# A dir store as an export and as a local store: what was synced outlives
# kill -9 of its server and of rmemd; damage is an error, not zeros.
. "$(dirname "$0")/lib.sh"

store=$work/store
hosts_up
start_server "d=dir://$store?size=1000000&chunk=64KiB"
start_rmemd
attach d --chunk 64KiB
assert_eq 0x0 "$(rmem-load peek /dev/rmem-d 4096)" "a fresh store's bytes"
assert_exit 0 rmem-load write /dev/rmem-d 1
assert_exit 0 rmemctl sync d
assert_eq 16 "$(find "$store" -type f -name '00000?' | wc -l)" "chunks"

# The server dies under the region, which has more to push then.
stop server KILL
assert_exit 0 rmem-load poke /dev/rmem-d 8 77
start_server "d=dir://$store"
assert_exit 0 rmemctl sync d
assert_exit 0 rmemctl drop d
assert_eq 0x4d "$(rmem-load peek /dev/rmem-d 8)" "what was written while the server was gone"
assert_exit 0 rmem-load poke /dev/rmem-d 8 1

# Holes come back.
assert_exit 0 rmem-load punch /dev/rmem-d 65536 131072
assert_exit 0 rmemctl sync d
assert_eq 14 "$(find "$store" -type f -name '00000?' | wc -l)" "chunks after punching two"
assert_exit 0 rmemctl detach d
stop server
assert_eq 0 "$status" "status of the server"

# The same store without a server: by one at a time, by root.
assert_exit 0 rmemctl attach local "dir://$store"
assert_error 6 "$store" rmemctl attach again "dir://$store" --read-only
assert_eq 0x0 "$(rmem-load peek /dev/rmem-local 65536)" "a hole"
assert_exit 0 rmem-load write /dev/rmem-local 2
stop rmemd KILL
start_rmemd
assert_exit 0 rmemctl detach local
assert_exit 0 rmemctl attach local "dir://$store" --read-only
assert_exit 0 rmem-load read /dev/rmem-local 2
assert_exit 0 rmemctl detach local

# What cannot be is said.
assert_error 8 "size" rmemctl attach local "dir://$store?size=2MiB"
assert_error 8 "chunk" rmemctl attach local "dir://$store?chunk=1MiB"
assert_error 3 "$work/none" rmemctl attach local "dir://$work/none"
assert_error 2 "chunk" rmemctl attach local "dir://$work/none?size=1MiB&chunk=5000"
rm "$store/000/000003"
assert_exit 0 rmemctl attach local "dir://$store" --on-loss error --fault-timeout 1s
assert_exit 5 rmem-load pread /dev/rmem-local $((3 * 65536)) 1
assert_exit 0 rmem-load pread /dev/rmem-local $((4 * 65536)) 1
assert_exit 0 rmemctl detach local
echo x >>"$store/manifest"
assert_error 8 "manifest" rmemctl attach local "dir://$store"
