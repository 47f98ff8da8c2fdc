#!/bin/bash
# SPDX-License-Identifier: MIT
#
# fio with checksums in every block, through mappings and by read and write, by
# several processes at once; then fio itself judges the server's file.
. "$(dirname "$0")/lib.sh"

size=$((8 << 20))
head -c $size /dev/zero >served
hosts_up
start_server "f=file://$work/served"
start_rmemd
attach f --chunk 64KiB --push-interval 500ms
file=/run/rmem/regions/f

# A region has its size, so fio must neither lay the file out nor truncate it.
fio_on() { # PATH ARG...
	local path=$1
	shift
	assert_exit 0 timeout 100 fio --name=job --filename="$path" --size=$size --thread=0 \
		--fallocate=none --overwrite=1 --verify=crc32c --verify_fatal=1 --randrepeat=1 \
		--output-format=terse --group_reporting "$@"
	out=$(tail -n 1 <<<"$out")
	assert_match '^3;fio' "$out" "what fio prints"
	assert_eq 0 "$(cut -d';' -f5 <<<"$out")" "fio's error"
}
judge_server() { # ARG... of the job that wrote
	assert_exit 0 rmemctl sync f
	assert_clean f
	fio_on "$work/served" "$@" --ioengine=psync --verify_only
}

seed=$RMEM_SEED
for how in mmap:randwrite psync:write; do
	note "$how"
	engine=${how%:*}
	job=("--rw=${how#*:}" --bs=4k --randseed=$((++seed)))
	fio_on $file "--ioengine=$engine" "${job[@]}" --fsync=256
	judge_server "${job[@]}"
	# Read back from the server, not from what is resident.
	assert_exit 0 rmemctl drop f
	fio_on $file "--ioengine=$engine" "${job[@]}" --verify_only
done

# Four writers with quarters of their own and blocks that cross pages, the region
# evicted under them. By write(2): fio 3.33 maps offset 0 whatever a job's is.
note "four writers"
job=(--rw=randwrite --bs=6k --numjobs=4 --size=2M --offset_increment=2M --randseed=$((++seed)))
while sleep 0.2; do rmemctl drop f; done & dropper=$!
on_exit() { kill $dropper 2>/dev/null; }
fio_on $file --ioengine=psync "${job[@]}"
kill $dropper
wait $dropper || true
judge_server "${job[@]}"
assert_eq 0 "$(region f errors)" errors
assert_exit 0 rmemctl detach f
