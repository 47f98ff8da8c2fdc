#!/bin/bash
# SPDX-License-Identifier: MIT
# timeout: 1500
# vm: icount=1 mem=1280
#
# What a page costs, in instructions of all that takes part, against peers in the
# same run (docs/benchmarks.md): a cold sequential read against a raw TCP stream,
# an isolated random page against userfaultfd. A first write to a clean page takes no
# daemon: it goes through while that is stopped, and nothing is asked of it.

# While an idle guest waits for the host, for a page of a file for instance, its
# clock runs ahead to the next timer, and the next. A busy guest's does not.
(while :; do :; done) &
busy=$!
chrt --idle -p 0 $busy
. "$(dirname "$0")/lib.sh"

# Nothing is pushed that nobody has asked for: with a leap of the clock the time of the
# kernel's flusher comes at any moment.
sysctl -q vm.dirty_writeback_centisecs=360000

size=8MiB pages=2048
rmem-bench make "$work/file" --size $size
start server rmem-server --listen tcp://127.0.0.1:7070 --state-dir "$work/state" \
	--export "mem=mem://$size" --export "file=file://$work/file"
start peers rmem-bench serve --listen tcp://127.0.0.1:7071 --size $size
start_rmemd
assert_exit 0 rmemctl attach 4k rmem://127.0.0.1/mem --push-interval 300s --chunk 4KiB
assert_exit 0 rmem-bench make /dev/rmem-4k --size $size
assert_exit 0 rmemctl attach 64k rmem://127.0.0.1/file --read-only --chunk 64KiB
assert_exit 0 rmemctl attach 256k rmem://127.0.0.1/file --push-interval 300s

bench() { # ARG...
	rmem-bench run --server tcp://127.0.0.1:7071 --size $size --region /dev/rmem-4k --region /dev/rmem-64k \
		--region /dev/rmem-256k "$@"
}
# Brings all code into memory.
bench --rounds 1 --peer uffd-4k --case random >"$work/.warm"
rmemctl status >"$work/.warm"
kill $busy
wait $busy || true

bench --case sequential --case random --case resident --case write \
	--rounds 3 --peer tcp --peer uffd-4k --peer uffd-4k-1 --peer tmpfs --tsv /out/instructions.tsv

# The least of the rounds: an idle moment, such as a delayed acknowledgement, is no
# instruction, yet the clock goes on.
cost() { # PEER CASE
	awk -F'\t' -v peer="$1" -v which="$2" '$1 == peer && $2 == which { print $5 }' /out/instructions.tsv
}
# assert_ratio CASE PEER OTHER LIMIT: so many hundredths at most.
assert_ratio() {
	local mine other
	mine=$(cost "$2" "$1") other=$(cost "$3" "$1")
	note "$1: $2 / $3 is $((100 * mine / other)) %"
	assert_le $((100 * mine)) $(($4 * other)) "hundreds of instructions a page, $1, $2 against $3"
}
assert_ratio sequential rmem:64k tcp 300
assert_ratio random rmem:4k uffd-4k 90
# each page a folio of its own, and so a fault; and what is opened ahead of a writer
assert_ratio write rmem:4k uffd-4k-1 50
assert_ratio write rmem:256k rmem:4k 25

# --- a first write, and who takes part in it ----------------------------------

trace=/sys/kernel/tracing
mountpoint -q $trace || mount -t tracefs tracefs $trace
assert_exit 0 rmemctl sync 256k
assert_exit 0 rmem-load scan /dev/rmem-256k
before=$(region 256k write_protect)
echo 1 >$trace/events/rmem/rmem_request_new/enable
echo 1 >$trace/events/rmem/rmem_request_sent/enable
echo 1 >$trace/events/rmem/rmem_mkwrite/enable
echo >$trace/trace
kill -STOP "${pids[rmemd]}"
timeout 60 rmem-load write /dev/rmem-256k 1 || fail "writing to clean pages takes a daemon"
kill -CONT "${pids[rmemd]}"
echo 0 >$trace/events/rmem/enable
# rmem-load has not read them: what is not mapped cannot be opened
assert_eq $pages "$(grep -c 'rmem_mkwrite:' $trace/trace)" "first writes"
assert_eq 0 "$(grep -c 'rmem_request_[a-z]*:' $trace/trace)" "requests to the daemon"
assert_eq $pages $(($(region 256k write_protect) - before)) "write-protect faults"
assert_eq $((pages * 4096)) "$(region 256k dirty_bytes)" "dirty"
assert_exit 0 rmemctl sync 256k
assert_exit 0 rmem-load check "$work/file" 1

# What was written is not what rmem-bench expects, and it says so.
assert_exit 8 bench --rounds 1 --peer tmpfs --case sequential
assert_match "rmem:64k, sequential: page 0 is wrong from byte 0 on" "$err" "the first wrong byte"
