#!/bin/bash
# SPDX-License-Identifier: MIT
#
# rmemd ends, by SIGTERM and by SIGKILL, and is started again: it prints ready
# when its regions are served, without a command; what was written meanwhile is
# pushed. Two instances leave each other's regions alone.
. "$(dirname "$0")/lib.sh"

hosts_up
rmem-load make "$work/file" 262144 1
rmem-load make "$work/local" 262144 1
start_server "a=file://$work/file" "b=file://$work/file,ro" "m=mem://256KiB"
start_rmemd
attach a --chunk 64KiB --mode 0640 --push-interval 200ms
attach b --read-only
assert_exit 0 rmemctl attach l "file://$work/local" --push-interval 200ms
# What is resident can be written without a daemon.
assert_exit 0 rmem-load peek /dev/rmem-l 0
config='"(id|name|source|size_bytes|chunk_bytes|read_only|uid|gid|mode|on_loss|fault_timeout_ms|sync_timeout_ms|instance|bind)":[^,]*'
before=$(rmemctl status --json | grep -oE "$config")

note "SIGTERM: what is dirty is pushed before it leaves"
assert_exit 0 rmem-load poke /dev/rmem-a 0 1
stop rmemd
assert_eq 0 "$status" "exit status of rmemd"
assert_eq quiesced "$(region a state)" "state"
assert_clean a
mountpoint -q /run/rmem/regions && fail "rmemfs is still mounted"
[[ ! -e /run/rmem/rmemd.sock ]] || fail "the socket is still there"
assert_exit 0 rmem-load poke /dev/rmem-a 0 2
assert_exit 0 rmem-load poke /dev/rmem-l 0 2
start_rmemd
# ready means served: no request waits for a later one.
[[ $(region a state) == @(active|degraded) ]] || fail "a is $(region a state) after ready"
assert_eq "$before" "$(rmemctl status --json | grep -oE "$config")" "options after a restart"
assert_exit 0 rmem-load pread /dev/rmem-a 131072 65536
for name in a l; do
	wait_for is_clean $name
done
for file in file local; do
	assert_eq 2 "$(od -An -tu8 -N8 "$work/$file" | tr -d ' ')" "what the server has in $file"
done

note "SIGKILL: the mount it left is its own again"
stop rmemd KILL
mountpoint -q /run/rmem/regions || fail "rmemfs should be left over"
assert_exit 0 rmem-load poke /run/rmem/regions/a 0 3
start_rmemd
assert_eq 1 "$(grep -c ' /run/rmem/regions ' /proc/self/mountinfo)" "mounts of rmemfs"
assert_exit 0 rmemctl sync a
assert_eq 3 "$(od -An -tu8 -N8 "$work/file" | tr -d ' ')" "what the server has"
assert_eq "$before" "$(rmemctl status --json | grep -oE "$config")" "options after a kill"

note "the server is away when rmemd comes back"
stop rmemd KILL
stop server KILL
assert_exit 0 rmem-load poke /dev/rmem-a 0 4
start_rmemd
assert_eq degraded "$(region a state)" "state without a server"
start_server "a=file://$work/file" "b=file://$work/file,ro" "m=mem://256KiB"
wait_for region_is a state active
assert_exit 0 rmemctl sync a
assert_eq 4 "$(od -An -tu8 -N8 "$work/file" | tr -d ' ')" "what the server has"

note "another instance"
in_cli start rmemd2 rmemd --instance other --socket "$work/other.sock"
assert_exit 0 rmemctl --socket "$work/other.sock" attach m "rmem://$SRV4/m" --insecure
assert_eq other "$(region m instance)" "instance of m"
assert_error 6 "instance" rmemctl sync m
assert_error 6 "instance" rmemctl detach m
assert_error 6 "instance" rmemctl --socket "$work/other.sock" detach a
mine=$(region a daemon_pid)
stop rmemd2 KILL
assert_eq quiesced "$(region m state)" "state of m"
assert_eq active "$(region a state)" "state of a"
stop rmemd KILL
start_rmemd
assert_eq quiesced "$(region m state)" "state of m"
[[ $(region a daemon_pid) != "$mine" ]] || fail "a still belongs to pid $mine"
in_cli start rmemd2 rmemd --instance other --socket "$work/other.sock"
wait_for region_is m state active
assert_exit 0 env RMEM_SOCKET="$work/other.sock" rmemctl detach m
stop rmemd2
mountpoint -q /run/rmem/regions || fail "the other instance took the mount along"
for name in a b l; do
	assert_exit 0 rmemctl detach $name
done
