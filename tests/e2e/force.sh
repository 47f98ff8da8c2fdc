#!/bin/bash
# SPDX-License-Identifier: MIT
#
# detach --force always ends, whoever uses the region and whatever has died, and
# tells what was lost; abort ends the waits and loses nothing.
. "$(dirname "$0")/lib.sh"

rmem-load make "$work/file" $((1 << 20)) 1
hosts_up
start_server "file=file://$work/file"
start_rmemd
attach_file() { attach file --chunk 4KiB --sync-timeout 3s --take-over; }

# who waits: a load of a page that is not there, and a read
begin_waiting() {
	rmem-load peek /dev/rmem-file $((512 << 10)) >"$work/load" 2>&1 & load=$!
	rmem-load pread /dev/rmem-file $((768 << 10)) 8 >"$work/read" 2>&1 & read=$!
	wait_for region_is file waiting 2
}
end_waiting() {
	status=0
	wait $load || status=$?
	assert_eq 135 $status "status of the load, SIGBUS"
	status=0
	wait $read || status=$?
	assert_eq 5 $status "status of the read, EIO"
}
# A file that is open across the end of its region.
gone() {
	dd of=/dev/null bs=1 count=1 <&9 2>"$work/dd" && fail "the region was readable"
	assert_match "Input/output error" "$(<"$work/dd")" "reading what is gone"
	exec 9<&-
	assert_error 3 "file" rmemctl status file
	[[ ! -e /dev/rmem-file && ! -e /run/rmem/regions/file ]] || fail "node or file stayed"
}

note "in use, all well: pushed, nothing lost"
attach_file
assert_exit 0 rmem-load poke /dev/rmem-file 0 21
exec 9</dev/rmem-file
assert_error 6 "open" rmemctl detach file
assert_exit 0 rmem-load poke /dev/rmem-file 8 22
assert_exit 0 rmemctl detach file --force
gone
assert_eq "21 22" "$(od -An -tu8 -N16 "$work/file" | xargs)" "what was pushed"

note "the server is gone: abort, then force"
attach_file
exec 9</dev/rmem-file
assert_exit 0 rmem-load poke /dev/rmem-file 0 31
assert_exit 0 rmemctl sync file
assert_exit 0 rmem-load poke /dev/rmem-file 0 32
assert_exit 0 rmem-load poke /dev/rmem-file 4096 33
stop server KILL
begin_waiting
assert_exit 0 rmemctl status file --why
assert_match "2 waiting.*rmemctl abort file" "${out//$'\n'/ }" "status --why"
assert_exit 0 rmemctl abort file
end_waiting
assert_eq 0x20 "$(rmem-load peek /dev/rmem-file 0)" "what was written is here"
begin_waiting
assert_exit 1 rmemctl detach file --force
assert_match "lost_bytes=8192 " "$err" "what was lost"
end_waiting
gone
start_server "file=file://$work/file"
attach_file
assert_eq 0x1f "$(rmem-load peek /dev/rmem-file 0)" "what was durable"

note "the daemon is silent"
exec 9</dev/rmem-file
assert_exit 0 rmem-load poke /dev/rmem-file 0 41
silence
begin_waiting
assert_exit 0 rmemctl abort file
end_waiting
begin_waiting
assert_exit 1 rmemctl detach file --force
assert_match "lost_bytes=4096 " "$err" "what was lost"
end_waiting
gone
silence_ends

note "the daemon is gone"
attach_file
exec 9</dev/rmem-file
stop rmemd KILL
begin_waiting
assert_exit 0 rmemctl detach file --force
end_waiting
gone
start_rmemd
attach_file
assert_exit 0 rmemctl detach file

note "not for everybody"
attach_file
rmemctl detach file
assert_exit 0 rmemctl attach file "rmem://$SRV4/file" --insecure --owner nobody
for command in abort "detach --force"; do
	# shellcheck disable=SC2086  # words
	assert_error 4 "rmem(d.sock|_control)" setpriv --reuid 65534 --regid 65534 --clear-groups rmemctl $command file
done
assert_exit 0 rmemctl detach file
