#!/bin/bash
# SPDX-License-Identifier: MIT
# timeout: 240
#
# rmemd and the server are stopped for a minute, which the kernel is not told about. Who waits
# for a page or a sync can be killed at once, fsync, msync and sync(2) end by
# --sync-timeout again and again, what is here can be used, and nobody is stuck
# for ten seconds in a way the kernel calls a hang. Then all goes on.
. "$(dirname "$0")/lib.sh"

hung_tasks=/proc/sys/kernel/hung_task_timeout_secs
before=$(<$hung_tasks)
on_exit() { echo "$before" >$hung_tasks; }
echo 10 >$hung_tasks

page=4096
rmem-load make "$work/file" $((64 * page)) 3
hosts_up
start_server "r=file://$work/file"
start_rmemd
attach r --chunk 4KiB --sync-timeout 5s --fault-timeout 300s --push-interval 1h
# Backwards: forwards the others would be read ahead.
for p in 1 0; do
	assert_exit 0 rmem-load peek /dev/rmem-r $((p * page))
done
assert_exit 0 rmem-load poke /dev/rmem-r 8 1

now_ms() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }

silence
began=$SECONDS
report=$(wc -l < <(dmesg))

# Each thing twice: one is killed, the other one gets what it wants in the end.
declare -A victims survivors
wait_for_page() { # NAME COMMAND...: on pages of their own
	local name=$1
	shift
	"${@//PAGE/$((at * page))}" >"$work/$name.victim" 2>&1 & victims[$name]=$!
	"${@//PAGE/$(((at + 1) * page))}" >"$work/$name.survivor" 2>&1 & survivors[$name]=$!
	at=$((at + 2))
}
at=8
wait_for_page load rmem-load peek /dev/rmem-r PAGE
wait_for_page store rmem-load poke /dev/rmem-r PAGE 21
wait_for_page pread rmem-load pread /dev/rmem-r PAGE 8
wait_for_page pwrite rmem-load pwrite r@/dev/rmem PAGE 22
wait_for_page file rmem-load pread /run/rmem/regions/r PAGE 8
wait_for region_is r waiting 10

# What is synced in the meantime, over and over; how long each took.
sync_loop() { # NAME STATUS COMMAND...
	local name=$1 want=$2 start got
	shift 2
	until [[ -e $work/enough ]]; do
		start=$(now_ms) got=0
		"$@" >/dev/null 2>&1 || got=$?
		((got == want)) || echo "'$*': status $got" >>"$work/$name.bad"
		echo $(($(now_ms) - start)) >>"$work/$name.ms"
		sleep 0.2
	done
}
sync_loop fsync 5 rmem-load fsync /dev/rmem-r & loops=($!)
sync_loop msync 5 rmem-load poke /dev/rmem-r 8 2 msync & loops+=($!)
sync_loop sync 0 sync & loops+=($!)
sync_loop rmemctl 5 rmemctl sync r & loops+=($!)

# While this goes on, what is here is here: clean, dirty, being pushed.
while ((SECONDS - began < 60)); do
	assert_exit 0 timeout 10 rmem-load peek /dev/rmem-r $page
	assert_exit 0 timeout 10 rmem-load poke /dev/rmem-r $((page + 8)) 3
	assert_exit 0 timeout 10 rmem-load pwrite /dev/rmem-r 16 4
	assert_exit 0 timeout 10 rmemctl status r --json
	sleep 2
done
assert_error 5 "did not answer" rmemctl detach r
touch "$work/enough"
wait "${loops[@]}"
# In the kernel's own wait, others can overtake sync(2) by beginning the next
# write of a page as soon as one is over. Alone, it ends.
start=$(now_ms)
sync
assert_le $(($(now_ms) - start)) $((60000 * ${RMEM_TIMEOUT_SCALE:-1})) "ms of sync(2) alone"
for name in fsync msync rmemctl; do
	[[ ! -e $work/$name.bad ]] || fail "$(<"$work/$name.bad")"
	note "$name: $(paste -sd' ' "$work/$name.ms") ms"
	assert_le "$(sort -n "$work/$name.ms" | tail -n 1)" $((30000 * ${RMEM_TIMEOUT_SCALE:-1})) "ms of $name"
done

# Syncs that are killed rather than end.
rmem-load fsync /dev/rmem-r & victims[fsync]=$!
rmem-load poke /dev/rmem-r 8 2 msync & victims[msync]=$!
in_sync() { grep -q 'rmem_.*sync' "/proc/$1/stack"; }
wait_for in_sync "${victims[fsync]}"
wait_for in_sync "${victims[msync]}"
assert_eq 10 "$(region r waiting)" "who waits for a page after all that time"
for name in "${!victims[@]}"; do
	start=$(now_ms) status=0
	kill -KILL "${victims[$name]}"
	wait "${victims[$name]}" || status=$?
	took=$(($(now_ms) - start))
	note "$name was dead after $took ms"
	assert_eq 137 $status "status of $name"
	assert_le $took $((1000 * ${RMEM_TIMEOUT_SCALE:-1})) "ms that $name took to die"
done
assert_eq 5 "$(region r waiting)" "who waits for a page"

hung=$(dmesg | tail -n +$((report + 1)) | grep -E 'blocked for more than|hung_task' || true)
assert_eq '' "$hung" "reports of hung tasks"

silence_ends
for name in "${!survivors[@]}"; do
	wait "${survivors[$name]}" || fail "$name failed: $(<"$work/$name.survivor")"
done
wait_for rmemctl sync r
assert_clean r
words() { od -An -v -tu8 -j "$1" -N "$2" "$work/file" | xargs; }
assert_eq "2 4" "$(words 8 16)" "words that were dirty all the time"
assert_eq 3 "$(words $((page + 8)) 8)" "a word that was clean"
assert_eq 21 "$(words $((11 * page)) 8)" "a word stored in a page that was not here"
assert_eq 22 "$(words $((15 * page)) 8)" "one written into it"
assert_exit 0 rmemctl detach r
