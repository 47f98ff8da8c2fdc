#!/bin/bash
# SPDX-License-Identifier: MIT
#
# On a machine without a group rmem the control socket is its owner's alone, and
# rmemd says so. With the group it is the group's again, on the next start.
. "$(dirname "$0")/lib.sh"

cp /etc/group "$work/group"
on_exit() { cp "$work/group" /etc/group; }
socket=/run/rmem/rmemd.sock
owner_and_mode() { stat -c '%U:%G %a' $socket; }

sed -i '/^rmem:/d' /etc/group
start_rmemd
assert_eq "root:root 600" "$(owner_and_mode)" "socket without a group"
assert_match "no group .rmem.*$socket" "$(<"$work/rmemd.log")" "warning"
assert_exit 0 rmemctl status
stop rmemd

cp "$work/group" /etc/group
start_rmemd
assert_eq "root:rmem 660" "$(owner_and_mode)" "socket with a group"
assert_eq 1 "$(grep -c 'no group' "$work/rmemd.log")" "warnings"
