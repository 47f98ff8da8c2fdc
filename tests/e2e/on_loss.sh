#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Who waits for a page that does not come gets what --on-loss says, after
# --fault-timeout: SIGBUS or EIO, SIGKILL, or goes on waiting, killably. All of
# it ends when the server is back. Resident pages do as ever, dirty ones above
# all.
. "$(dirname "$0")/lib.sh"

hosts_up
# Where each loss finds nothing resident: no read-ahead spans the gaps.
places=($((24 << 20)) $((48 << 20)) $((72 << 20)))
truncate -s 96M "$work/file"
for at in "${places[@]}"; do rmem-load poke "$work/file" "$at" $((at / 4096)); done
policies=(error kill wait)
exports=()
for policy in "${policies[@]}"; do
	cp "$work/file" "$work/$policy"
	exports+=("$policy=file://$work/$policy")
done
start_server "${exports[@]}"
start_rmemd
for policy in "${policies[@]}"; do
	attach $policy --on-loss $policy --fault-timeout 1s --chunk 4KiB --push-interval 1h
	assert_exit 0 rmem-load poke /dev/rmem-$policy 0 5
	assert_eq $policy "$(region $policy on_loss)" "on_loss"
done

lost() { # the server or the daemon
	local word=$1 at=$2
	# Waiting ones first: their time runs as well.
	rmem-load peek /dev/rmem-wait "$at" >"$work/waiter" 2>&1 & waiter=$!
	rmem-load pread /dev/rmem-wait $((at + 4096)) 8 >"$work/reader" 2>&1 & reader=$!
	rmem-load poke /dev/rmem-wait $((at + 8192)) 1 >"$work/victim" 2>&1 & victim=$!
	rmem-load pwrite /dev/rmem-wait $((at + 12288)) 6 >"$work/writer" 2>&1 & writer=$!

	assert_exit 135 rmem-load peek /dev/rmem-error "$at" # SIGBUS
	assert_exit 135 rmem-load poke /dev/rmem-error $((at + 4096)) 1
	assert_exit 5 rmem-load pread /dev/rmem-error $((at + 8192)) 8 # EIO
	assert_exit 5 rmem-load pwrite error@/dev/rmem $((at + 8192)) 8
	assert_exit 137 rmem-load peek /dev/rmem-kill "$at" # SIGKILL
	assert_exit 137 rmem-load pread /dev/rmem-kill $((at + 4096)) 8
	assert_exit 137 rmem-load poke /run/rmem/regions/kill $((at + 8192)) 1
	assert_exit 137 rmem-load pwrite kill@/dev/rmem $((at + 12288)) 6

	# By now more than the second has passed: those of `wait' still wait.
	assert_eq 4 "$(region wait waiting)" "who waits"
	for policy in "${policies[@]}"; do
		assert_eq "$word" "$(rmem-load peek /dev/rmem-$policy 0)" "a resident word of $policy"
		assert_exit 0 rmem-load poke /dev/rmem-$policy 8 "$word"
		assert_ge "$(unsafe $policy)" 4096 "bytes of $policy that are not durable"
		assert_exit 0 rmem-load pwrite /dev/rmem-$policy 16 "$at"
	done
	kill -KILL $victim
	wait $victim && fail "the victim lived"
	wait_for region_is wait waiting 3
}
found() {
	wait $waiter || fail "a waiter failed: $(<"$work/waiter")"
	wait $reader || fail "a reader failed: $(<"$work/reader")"
	assert_eq 8 "$(<"$work/reader")" "bytes read"
	wait $writer || fail "a writer failed: $(<"$work/writer")"
	assert_eq 0x6 "$(rmem-load peek /dev/rmem-wait $((at + 12288)))" "what it wrote"
	for policy in "${policies[@]}"; do
		wait_for region_is $policy state active
		wait_for rmem-load pread /dev/rmem-$policy $((at + 8192)) 8
		assert_exit 0 rmem-load peek /dev/rmem-$policy "$at"
		assert_eq "$(printf '%#x' $((at / 4096)))" "$out" "a page of $policy after the loss"
	done
}

note "the server is gone"
stop server KILL
at=${places[0]}
lost 0x5 $at
start_server "${exports[@]}"
found

note "the daemon is gone"
stop rmemd KILL
at=${places[1]}
lost 0x5 $at
start_rmemd
found

note "the daemon is silent"
silence
at=${places[2]}
lost 0x5 $at
silence_ends
found
for policy in "${policies[@]}"; do
	assert_exit 0 rmemctl detach $policy
	assert_eq "5 $at" "$(od -An -v -tu8 -j8 -N16 "$work/$policy" | xargs)" "the server's words of $policy"
done
