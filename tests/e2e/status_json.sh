#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What scripts rely on: the members of status --json and their types, counters
# that only grow and survive the daemon, the events.
. "$(dirname "$0")/lib.sh"

cat >"$work/check.py" <<'PYTHON'
"""Every document of status --json given, in order of time."""
import json, sys

TYPES = {
    "name": str, "source": str, "state": str, "size_bytes": int, "chunk_bytes": int,
    "resident_bytes": int, "dirty_bytes": int, "writeback_bytes": int, "fetched_bytes": int,
    "pushed_bytes": int, "faults": dict, "waiting": int, "errors": int, "read_only": bool,
    "daemon_pid": (int, type(None)),
}
GROWING = ("fetched_bytes", "pushed_bytes", "errors")
last = {}
for line in open(sys.argv[1]):
    document = json.loads(line)
    assert document["schema"] == 1, document
    for region in document["regions"]:
        for member, type_ in TYPES.items():
            assert isinstance(region[member], type_), (member, region)
        assert region["state"] in ("active", "degraded", "quiesced", "failed"), region
        assert set(region["faults"]) >= {"demand", "resident", "write_protect"}, region
        now = [region[m] for m in GROWING] + [region["faults"][m] for m in sorted(region["faults"])]
        then = last.get(region["name"], [0] * len(now))
        assert all(a >= b for a, b in zip(now, then)), (then, now)
        last[region["name"]] = now
assert last, "no region in any document"
PYTHON
look() { rmemctl status --json >>"$work/documents"; }

assert_exit 0 rmemctl status --json
assert_eq '{"schema":1,"regions":[]}' "$out" "status without a region"

hosts_up
rmem-load make "$work/file" 1000000 1
start_server "file=file://$work/file" "ro=file://$work/file,ro"
start_rmemd
start_events() {
	rmemctl events --json >"$work/events" 2>&1 & events=$!
	# It listens when it waits in poll.
	wait_for grep -q poll /proc/$events/wchan
}
start_events

attach file --chunk 64KiB --push-interval 1h
attach ro --read-only
look
assert_eq "rmem://$SRV4/file" "$(region file source)" source
assert_eq 1000000 "$(region file size_bytes)" size_bytes
assert_eq 65536 "$(region file chunk_bytes)" chunk_bytes
assert_eq "${pids[rmemd]}" "$(region file daemon_pid)" daemon_pid
assert_eq false "$(region file read_only)" read_only
assert_eq true "$(region ro read_only)" read_only
assert_eq 0 "$(region file fetched_bytes)" fetched_bytes

assert_exit 0 rmem-load peek /dev/rmem-file 0
assert_eq 65536 "$(region file fetched_bytes)" "fetched_bytes after a fault"
assert_eq 1 "$(region file demand)" "faults.demand"
look
assert_exit 0 rmem-load peek /dev/rmem-file 8192
assert_eq 1 "$(region file demand)" "faults.demand"
assert_exit 0 rmem-load poke /dev/rmem-file 0 5
assert_ge "$(region file resident)" 1 "faults.resident"
assert_eq 4096 "$(region file dirty_bytes)" dirty_bytes
assert_ge "$(region file write_protect)" 1 "faults.write_protect"
# The tail of the last page is never pushed, but it is a page that is dirty.
assert_exit 0 rmem-load poke /dev/rmem-file 999992 6
look
assert_exit 0 rmemctl sync file
assert_clean file
pushed=$(region file pushed_bytes)
assert_ge "$pushed" $((4096 + 1000000 % 4096)) pushed_bytes
look

stop rmemd KILL
wait_for region_is file state quiesced
assert_match '"daemon_pid":null' "$(rmemctl status file --json)" "daemon_pid without a daemon"
look
start_rmemd
wait_for region_is file state active
assert_eq "$pushed" "$(region file pushed_bytes)" "pushed_bytes in the next life"
look
stop server
wait_for region_is file state degraded
assert_match "$SRV4" "$(region file reason)" reason
look
start_server "file=file://$work/file" "ro=file://$work/file,ro"
wait_for region_is file state active
assert_exit 0 rmem-load pread /dev/rmem-ro 0 1000000
look
assert_exit 0 rmemctl detach file
assert_exit 0 rmemctl detach ro
wait_for grep -q '"event":"del","name":"ro"' "$work/events"
kill -INT $events
wait $events || fail "events: exit status $?"

assert_exit 0 /usr/bin/python3 "$work/check.py" "$work/documents"
/usr/bin/python3 - "$work/events" <<'PYTHON' || fail "$(<"$work/events")"
import json, sys
events = [json.loads(line) for line in open(sys.argv[1])]
assert all(e["schema"] == 1 for e in events)
seen = [e["event"] if e["event"] != "state" else e["state"] for e in events if e["name"] == "file"]
seen = [s for i, s in enumerate(seen) if not i or seen[i - 1] != s]
wanted = iter(seen)
assert seen[0] == "new" and seen[-1] == "del", seen
assert all(w in wanted for w in ("active", "quiesced", "active", "degraded", "active")), seen
PYTHON

# Text is for people, one line a region.
assert_exit 0 rmemctl status
assert_eq "no regions" "$out" "status"
