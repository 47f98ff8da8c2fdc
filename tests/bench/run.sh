#!/bin/bash
# SPDX-License-Identifier: MIT
#
# `make bench`: rmem and its peers side by side, in one VM, on the same bytes, every
# byte checked. Prints a table and leaves it in build/bench: bench.tsv, bench.txt,
# a PNG for each case. docs/benchmarks.md says what the peers and the cases are.
#
#   RMEM_KERNELS="6.1"      the kernel (default: the newest)
#   RMEM_BENCH_LINKS=...    of rtt0 rtt1 rtt5 rtt25, the latter three with -1gbit, rtt5-200mbit
#                           and each with -loss1; for the peers and for the transports
#   RMEM_BENCH_CLOCK=wall   two CPUs and real time: for the record only
#   RMEM_BENCH_SIZE, _ROUNDS, _PEERS, _CASES, _TRANSPORTS, _SAMPLES, _BULKS: see guest.sh
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
cd "$top"
out=$top/build/bench

links=${RMEM_BENCH_LINKS:-rtt0 rtt5 rtt25 rtt1-1gbit rtt5-1gbit rtt25-1gbit rtt5-200mbit}
transport_links=${RMEM_BENCH_LINKS:-rtt0 rtt25 rtt0-loss1 rtt25-loss1}
clock=(--icount)
[[ ${RMEM_BENCH_CLOCK:-} != wall ]] || clock=(--smp 2)

rm -rf "$out"
kernel=$(tests/vm/kernels.sh list | tail -n 1)
# shellcheck disable=SC2086  # words
tests/vm/run.sh --kernel "$kernel" "${clock[@]}" --mem 2048 --timeout 7200 --run-dir "$out/vm" -- \
	tests/bench/guest.sh $links -- $transport_links
# shellcheck disable=SC2046,SC2086  # words
"$here/report.py" "$out" "$kernel ${clock[*]}" $(printf '%s\n' $links $transport_links | awk '!seen[$0]++')
