#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The server comes back with another store under the same name: memory after a
# restart, a file that was replaced or has another size. The region fails (8);
# it never shows the zeros, or the other bytes, as its own.
. "$(dirname "$0")/lib.sh"

hosts_up
rmem-load make "$work/replaced" $((1 << 20)) 1
rmem-load make "$work/resized" $((1 << 20)) 1
exports=(mem=mem://1MiB "replaced=file://$work/replaced" "resized=file://$work/resized")
start_server "${exports[@]}"
start_rmemd
for name in mem replaced resized; do
	attach $name --chunk 64KiB --sync-timeout 5s
	# In one chunk: two in a row would have the next ones read ahead.
	assert_exit 0 rmem-load poke /dev/rmem-$name 0 11 fsync
	assert_exit 0 rmem-load poke /dev/rmem-$name 32768 12
done

stop server KILL
rmem-load make "$work/other" $((1 << 20)) 2
mv "$work/other" "$work/replaced"
truncate -s 2M "$work/resized"
start_server "${exports[@]}"

for name in mem replaced resized; do
	wait_for region_is $name state failed
	# What is resident stays, what was not synced is kept, nothing is fetched.
	assert_eq 0xb "$(rmem-load peek /dev/rmem-$name 0)" "synced word of $name"
	assert_eq 0xc "$(rmem-load peek /dev/rmem-$name 32768)" "dirty word of $name"
	assert_exit 0 rmem-load poke /dev/rmem-$name 32768 13
	assert_exit 0 rmem-load pwrite /dev/rmem-$name 32776 14
	assert_eq 0xd "$(rmem-load peek /dev/rmem-$name 32768)" "dirty word of $name, written anew"
	assert_exit 135 rmem-load peek /dev/rmem-$name 524288
	assert_exit 116 rmem-load pread /dev/rmem-$name 524288 4096
	assert_error 8 "$name" rmemctl sync $name
	assert_eq 4096 "$(region $name dirty_bytes)" "dirty bytes of $name"
	assert_error 8 "$name" rmemctl attach $name "rmem://$SRV4/$name" --insecure --chunk 64KiB --sync-timeout 5s
done
