#!/bin/bash
# SPDX-License-Identifier: MIT
#
# --pull all has everything there without a fault, --pull recorded what a run has touched, in
# that order: the same run waits for nothing then. The recording is the store's, whatever
# the region is called; it survives rmemd, and a damaged one is as good as none.
. "$(dirname "$0")/lib.sh"

chunk=$((64 << 10)) size=$((16 << 20))
rmem-load make "$work/file" $size 1
hosts_up
start_server "f=file://$work/file"
start_rmemd --state-dir "$work/rmemd"

assert_error 2 "none, all or recorded" rmemctl attach f "$scheme://$SRV4/f" "${over[@]}" --pull some
attach f --chunk 64KiB --pull all
wait_for at_least $size region f resident_bytes
assert_exit 0 rmem-load read /dev/rmem-f 1
assert_eq 0 "$(region f demand)" "waits for what was pulled"
assert_exit 0 rmemctl detach f

# --- recording ------------------------------------------------------------------------

cat >"$work/run" <<-'RUN'
	#!/bin/bash
	for page in 3000 17 18 2222 900 33 3001; do
	        rmem-load peek "$1" $((page * 4096)) || exit
	done
RUN
chmod +x "$work/run"
attach f --chunk 64KiB --pull recorded # nothing yet
assert_exit 2 rmemctl record f --stop
assert_exit 2 rmemctl record f --stop -- true
assert_exit 3 rmemctl record none
assert_exit 7 rmemctl record f -- bash -c 'exit 7'
assert_exit 0 rmem-load peek /dev/rmem-f $((size - 4096)) # there, and not in the run
assert_exit 0 rmemctl record f -- "$work/run" /dev/rmem-f
assert_match "recorded 320KiB, ranges: 5" "$err" "what is said"
first=$(region f demand)
# No reason to forget it.
assert_exit 3 rmemctl record f -- "$work/no such program"
assert_exit 0 rmemctl detach f

# Found again by another daemon, under another name and with other chunks.
stop rmemd
start_rmemd --state-dir "$work/rmemd"
again() { # CHUNK
	assert_exit 0 rmemctl attach g "$scheme://$SRV4/f" "${over[@]}" --chunk "$1" --pull recorded
	wait_for at_least $((5 * chunk)) region g resident_bytes
	assert_eq $((5 * chunk)) "$(region g fetched_bytes)" "bytes pulled"
	assert_exit 0 "$work/run" /dev/rmem-g
	assert_eq 0 "$(region g demand)" "waits of the second run"
	assert_exit 0 rmemctl detach g
}
note "the first run has waited $first times"
again 64KiB
again 4KiB

# What is dirty is pushed first, and recorded like the rest.
attach f --chunk 64KiB
assert_exit 0 rmem-load poke /dev/rmem-f 8192 9
assert_exit 0 rmemctl record f
assert_exit 0 rmem-load peek /dev/rmem-f 8192
assert_match '"recording"' "$(rmemctl status f --json)" "status"
assert_exit 0 rmemctl record f --stop
assert_match "recorded 64KiB, ranges: 1" "$err" "what is said"
assert_exit 0 rmemctl detach f

# A damaged recording costs the pull, nothing else.
for file in "$work"/rmemd/recordings/*; do truncate -s 40 "$file"; done
attach f --chunk 64KiB --pull recorded
assert_exit 0 rmem-load peek /dev/rmem-f $((17 * 4096))
assert_match "nothing is pulled" "$(cat "$work/rmemd.log")" "the log"
assert_exit 0 rmemctl detach f
