#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Many processes with many threads read and write one region; while they do, it
# is evicted and synced. Afterwards the server has all of it.
. "$(dirname "$0")/lib.sh"

rmem-load make "$work/file" $((8 << 20)) 0
hosts_up
start_server "shared=file://$work/file"
start_rmemd
attach shared --push-interval 200ms

start load rmem-load run /dev/rmem-shared "$work/oracle" 4 4
wait_for at_least 3000 rmem-load progress "$work/oracle"
assert_exit 0 rmem-load compare "$work/file" "$work/oracle"
stop load
assert_eq 0 "$status" "status of the load"

assert_exit 0 rmemctl sync shared
assert_clean shared
assert_exit 0 rmem-load compare "$work/file" "$work/oracle" exact
assert_exit 0 rmemctl drop shared
assert_exit 0 rmem-load compare /dev/rmem-shared "$work/oracle" exact
assert_eq 0 "$(region shared errors)" "errors"
note "$(tail -n 1 "$work/load.log"); $out"
assert_exit 0 rmemctl detach shared
