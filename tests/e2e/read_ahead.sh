#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Who reads in sequence waits a few times only, since what comes next is fetched
# ahead; who looks here and there fetches little more than that.
. "$(dirname "$0")/lib.sh"

chunk=$((64 << 10))
size=$((16 << 20)) page=0
rmem-load make "$work/file" $size 1
hosts_up
start_server "f=file://$work/file,ro"
start_rmemd
attach f --read-only --chunk 64KiB

assert_exit 0 rmem-load read /dev/rmem-f 1
assert_eq $size "$(region f fetched_bytes)" "fetched bytes"
demanded=$(demand_fetches f)
note "$((size / chunk)) chunks in sequence: $demanded demand fetches, $(region f demand) waits"
assert_le "$demanded" $((size / chunk / 8)) "demand fetches of a sequential reader"

# Every third chunk, by one thread, and from the end.
strided() { # FIRST END STEP
	/usr/bin/python3 - "$size" "$@" <<-'PYTHON'
		import mmap, os, sys
		size, first, end, step = map(int, sys.argv[1:])
		fd = os.open("/dev/rmem-f", os.O_RDONLY)
		there = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
		for at in range(first, end, step):
		    if int.from_bytes(there[at:at + 8], "little") != at // 4096:
		        sys.exit(f"wrong bytes at {at}")
	PYTHON
}
for step in 3 -3; do
	assert_exit 0 rmemctl drop f
	before=$(region f fetched_bytes) demanded=$(demand_fetches f)
	if ((step > 0)); then
		assert_exit 0 strided 0 $size $((step * chunk))
	else
		assert_exit 0 strided $((size - chunk)) -1 $((step * chunk))
	fi
	touched=$((size / chunk / 3 + 1)) demanded=$(($(demand_fetches f) - demanded))
	fetched=$((($(region f fetched_bytes) - before) / chunk))
	note "each $step. of the chunks, $touched: $demanded demand fetches, $fetched chunks fetched"
	assert_le $demanded $((touched / 4)) "demand fetches of a strided reader"
	assert_le $fetched $((touched + touched / 10)) "chunks fetched for a strided reader"
done

assert_exit 0 rmemctl drop f
before=$(region f fetched_bytes)
for ((i = 0; i < 8; i++)); do
	random page $((size / 4096))
	assert_eq "$(printf '0x%x' "$page")" "$(rmem-load peek /dev/rmem-f $((page * 4096)))" "page $page"
done
fetched=$(($(region f fetched_bytes) - before))
note "8 pages here and there: $((fetched / chunk)) chunks fetched"
assert_le $fetched $((8 * chunk)) "bytes fetched for 8 pages"
