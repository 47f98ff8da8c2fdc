#!/bin/bash
# SPDX-License-Identifier: MIT
#
# rmemd by itself, with a file of this host as the store: read, written, synced,
# one writer at a time.
. "$(dirname "$0")/lib.sh"

rmem-load make "$work/file" 1000000 1
start_rmemd
assert_exit 0 rmemctl attach local "file://$work/file"
assert_exit 0 rmem-load read /dev/rmem-local 1
assert_exit 0 rmem-load write /dev/rmem-local 2
assert_exit 0 rmemctl sync local
assert_exit 0 rmem-load check "$work/file" 2
assert_eq 1000000 "$(stat -c %s "$work/file")" "size of the file"

assert_error 6 "$work/file" rmemctl attach again "file://$work/file"
assert_exit 0 rmemctl attach reader "file://$work/file" --read-only
assert_exit 0 rmem-load read /dev/rmem-reader 2
assert_exit 0 rmemctl detach reader

# Created sparse, of the size asked for; another size is an error.
assert_exit 0 rmemctl attach fresh "file://$work/fresh?size=1MiB"
assert_eq 0x0 "$(rmem-load peek /dev/rmem-fresh 4096)" "a fresh file's bytes"
assert_exit 0 rmemctl detach fresh
assert_error 8 "$work/fresh" rmemctl attach fresh "file://$work/fresh?size=2MiB"
assert_error 3 "$work/none" rmemctl attach none "file://$work/none"
assert_error 2 mem: rmemctl attach mem mem://1MiB

# Its own death does not matter.
assert_exit 0 rmem-load poke /dev/rmem-local 8 77
stop rmemd KILL
start_rmemd
assert_exit 0 rmemctl detach local
assert_eq 77 "$(od -An -tu8 -j8 -N8 "$work/file" | tr -d ' ')" "what was written before the kill"
