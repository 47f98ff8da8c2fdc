#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What is not there: the module, the daemon, a region, an export, a server. Each
# has its exit code, and the message says what to do.
. "$(dirname "$0")/lib.sh"

module=$(dirname "$(command -v rmemctl)")/kmod/$(uname -r)/rmem.ko
on_exit() { [[ -d /sys/module/rmem ]] || insmod "$module"; }

rmmod rmem
for command in "rmemctl status" "rmemctl attach r rmem://127.0.0.1/e" "rmemctl detach r" \
	"rmemctl sync r" "rmemctl events" rmemd; do
	# shellcheck disable=SC2086  # words
	assert_error 3 "module|/dev/rmem_control" $command
done
assert_exit 3 rmemctl status --json
assert_eq '' "$out" "stdout"
assert_match '^\{"schema":1,"error":\{"code":3,"name":"not-found","cause":".+","hint":".+"\}\}$' "$err" "stderr"
insmod "$module"

# No daemon: 7; what needs only the kernel works.
assert_error 7 "rmemd" rmemctl attach r rmem://127.0.0.1/e
assert_exit 0 rmemctl status
assert_eq "no regions" "$out" "status"
assert_error 3 "nothing" rmemctl status nothing

hosts_up
start_server "e=mem://1MiB"
start_rmemd
for verb in status detach sync drop; do
	assert_error 3 "region.* nothing|nothing.*region" rmemctl $verb nothing
done
assert_error 3 "export.*none|none.*export" rmemctl attach r "rmem://$SRV4/none" --insecure
assert_error 7 "$SRV4:7999" rmemctl attach r "rmem://$SRV4:7999/e" --insecure
assert_error 7 "$work/none.sock" rmemctl attach r "rmem+unix:///e?socket=$work/none.sock"
assert_error 7 "no-such-host" rmemctl attach r rmem://no-such-host.invalid/e --insecure
assert_error 3 "$work/none" rmem-server --listen "unix://$work/s" --state-dir "$work/s2" --export "e=file://$work/none"
link_down
assert_error 7 "$SRV4" rmemctl attach r "rmem://$SRV4/e" --insecure
link_up
assert_exit 0 rmemctl status
assert_eq "no regions" "$out" "status after so many failures"

# The daemon is gone, its socket file is not.
attach e
stop rmemd KILL
for verb in sync drop detach; do
	assert_error 7 "rmemd" rmemctl $verb e
done
assert_eq quiesced "$(region e state)" "state"
start_rmemd
assert_exit 0 rmemctl detach e
