#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A writer that is cut off is replaced for good: when it is back it is fenced, its
# region fails, and what only it has can be salvaged. Nothing of the new writer is
# lost.
. "$(dirname "$0")/lib.sh"

page=4096
rmem-load make "$work/file" $((64 * page)) 1
hosts_up
start_server "file=file://$work/file"
start_rmemd
attach file
assert_exit 0 rmem-load poke /dev/rmem-file 0 11 fsync
for p in 3 4 9; do # resident before the link is cut
	assert_exit 0 rmem-load peek /dev/rmem-file $((p * page))
done

link_down
for p in 3 4 9; do
	assert_exit 0 rmem-load poke /dev/rmem-file $((p * page + 8)) "3$p"
done
wait_for region_is file state degraded # nobody has said so
# The new writer sits where the link does not matter.
in_srv start other rmemd --instance other --socket "$work/other.sock"
other() { rmemctl --socket "$work/other.sock" "$@"; }
assert_error 6 "writer" other attach new "rmem://$SRV4/file" --insecure
assert_exit 0 other attach new "rmem://$SRV4/file" --insecure --take-over
assert_exit 0 rmem-load poke /dev/rmem-new 0 41 fsync
assert_exit 0 rmem-load poke /dev/rmem-new $((3 * page + 8)) 42 fsync
assert_exit 0 rmem-load poke /dev/rmem-new $((5 * page)) 43

link_up
wait_for region_is file state failed
assert_error 6 "taken over.*salvage file" rmemctl sync file
assert_exit 116 rmem-load fsync /dev/rmem-file # ESTALE
assert_exit 0 rmemctl status file --why
assert_match "salvage file" "$out" "what to do"
# What it has stays readable and writable.
assert_eq 0x22 "$(rmem-load peek /dev/rmem-file $((4 * page + 8)))" "a word that was not pushed"
assert_exit 0 rmem-load poke /dev/rmem-file $((4 * page + 8)) 35

assert_exit 0 rmemctl salvage file "$work/saved" --json
assert_eq "{\"schema\":1,\"region\":\"file\",\"bytes\":$((3 * page)),\"runs\":2,\"file\":\"$work/saved\",\"map\":\"$work/saved.map\"}" \
	"$out" "salvage --json"
assert_eq $((64 * page)) "$(stat -c %s "$work/saved")" "size of the copy"
assert_eq "0x00000000 0x00003000 ?,0x00003000 0x00002000 +,0x00005000 0x00004000 ?,0x00009000 0x00001000 +,0x0000a000 0x00036000 ?" \
	"$(grep -v '^#' "$work/saved.map" | tail -n +2 | tr -s ' ' | paste -sd,)" "the map"
word() { od -An -tu8 -j "$2" -N8 "$1" | tr -d ' '; }
assert_eq 33 "$(word "$work/saved" $((3 * page + 8)))" "page 3"
assert_eq 35 "$(word "$work/saved" $((4 * page + 8)))" "page 4"
assert_eq 39 "$(word "$work/saved" $((9 * page + 8)))" "page 9"
assert_error 2 "exists" rmemctl salvage file "$work/saved"

assert_error 6 "taken over" rmemctl detach file
assert_exit 1 rmemctl detach file --force
assert_match "lost_bytes=$((3 * page)) " "$err" "what was lost"
assert_error 3 "file" rmemctl status file

assert_exit 0 other detach new
assert_eq 41 "$(word "$work/file" 0)" "the new writer's first word"
assert_eq 42 "$(word "$work/file" $((3 * page + 8)))" "its second"
assert_eq 43 "$(word "$work/file" $((5 * page)))" "its third"
assert_eq 0 "$(rmem-load check "$work/file" 1 2>&1 | grep -c "page 9 ")" "pages of the old writer at the server"
