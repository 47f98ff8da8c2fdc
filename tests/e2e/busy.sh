#!/bin/bash
# SPDX-License-Identifier: MIT
#
# One name, one writer, and what is in use: 6. The same again: 0.
. "$(dirname "$0")/lib.sh"

rmem-load make "$work/file" 65536 1
hosts_up
start_server "file=file://$work/file" "alias=file://$work/file" mem=mem://64KiB
start_rmemd
uri=rmem://$SRV4/file

attach file --chunk 8KiB --mode 0640
attach file --chunk 8KiB --mode 0640
id=$(region file id)
assert_error 6 "file.*other options" rmemctl attach file $uri --insecure --chunk 8KiB --mode 0600
assert_error 6 "file.*other options" rmemctl attach file $uri --insecure --chunk 4KiB --mode 0640
assert_error 6 "file.*other options" rmemctl attach file "rmem://$SRV4/mem" --insecure --chunk 8KiB --mode 0640
assert_eq "$id" "$(region file id)" "id of the region"

# One writer: whatever the name of region or export. Readers as many as like.
assert_error 6 "writer" rmemctl attach second $uri --insecure
assert_error 6 "writer" rmemctl attach second "rmem://$SRV4/alias" --insecure
for i in 1 2 3; do
	assert_exit 0 rmemctl attach reader$i $uri --insecure --read-only
	assert_exit 0 rmem-load read /dev/rmem-reader$i 1
done

# Open or mapped: pushed, but it stays.
start holder rmem-load hold /dev/rmem-file
assert_exit 0 rmem-load poke /dev/rmem-file 0 21
assert_error 6 "file.*open or mapped" rmemctl detach file
assert_clean file
assert_eq 21 "$(od -An -tu8 -N8 "$work/file" | tr -d ' ')" "what was pushed"
assert_eq active "$(region file state)" "state"
assert_exit 0 rmem-load poke /dev/rmem-file 0 22 fsync
exec 9</run/rmem/regions/file
stop holder KILL
assert_error 6 "file.*open" rmemctl detach file
exec 9<&-
assert_exit 0 rmemctl detach file
assert_eq 22 "$(od -An -tu8 -N8 "$work/file" | tr -d ' ')" "what was pushed last"
[[ ! -e /dev/rmem-file && ! -e /run/rmem/regions/file ]] || fail "node or file stayed"

# The writer has let go: the next one may, and is the only one again.
assert_exit 0 rmemctl attach second $uri --insecure
assert_error 6 "writer" rmemctl attach file $uri --insecure
# Across the death of both, too.
stop rmemd KILL
stop server KILL
start_server "file=file://$work/file"
start_rmemd
wait_for region_is second state active
assert_error 6 "writer" rmemctl attach file $uri --insecure
assert_exit 0 rmem-load poke /dev/rmem-second 0 23 fsync

# A second daemon at the same socket, a second server at the same address or
# state directory.
assert_error 6 "rmemd.sock" rmemd
assert_error 6 "7070" in_srv rmem-server --listen "tcp://$SRV4:7070" --insecure --export m=mem://1MiB
assert_error 6 "$work/state" rmem-server --listen "unix://$work/s" --state-dir "$work/state" --export "f=file://$work/file"
rmmod rmem 2>/dev/null && fail "the module could be unloaded"
assert_exit 0 rmemctl detach second
