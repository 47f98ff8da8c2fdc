#!/bin/bash
# SPDX-License-Identifier: MIT
#
# `make bench-gate`: what pages cost by rmem, as a multiple of what raw TCP (of pages that are
# there: tmpfs) takes in the same run, beside what recorded-SERIES.tsv has. Instructions are counted,
# so a busy host makes no difference. A line "ok" or "not ok" for each figure of the record; it
# fails where reading costs more than 5 % above that, or writing 15 %.
#
#   gate.sh [--record] [KERNEL]    (default: the newest); with --record what is measured becomes
#                                  the record, of the figures that it has
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
cd "$top"
out=$top/build/bench-gate
links=(rtt0 rtt25)
new=
[[ ${1:-} != --record ]] || { new=yes && shift; }
kernel=${1:-$(tests/vm/kernels.sh list | tail -n 1)}
record=$here/recorded-$(cut -d. -f1,2 <<<"$kernel").tsv
[[ -e $record ]] || { echo "bench-gate: nothing is recorded for Linux $kernel" >&2; exit 1; }
export RMEM_BENCH_ROUNDS=2 RMEM_BENCH_TRANSPORTS='' RMEM_BENCH_PEERS='^(tcp|tmpfs|rmem:(4k|256k)(\+pull)?)$'
export RMEM_BENCH_CASES="sequential random resident write overwrite rewrite"
rm -rf "$out"
tests/vm/run.sh --kernel "$kernel" --icount --mem 2048 --timeout 1800 --run-dir "$out" --quiet -- \
	tests/bench/guest.sh "${links[@]}" -- || {
	status=$?
	cat "$out/stderr.log" >&2
	exit $status
}

# LINK PEER CASE MULTIPLE: of the least of the rounds; of isolated pages the median.
for link in "${links[@]}"; do
	awk -F'\t' -v OFS='\t' -v link="$link" '
		{ ns[$1, $2] = $2 == "random" ? $7 : $5 }
		$1 ~ /^rmem:/ { rows[++n] = $1 SUBSEP $2 }
		END {
			base["sequential"] = ns["tcp", "sequential"]
			base["random"] = ns["tcp", "random"]
			base["overwrite"] = base["rewrite"] = ns["tcp", "overwrite"]
			base["resident"] = base["write"] = ns["tmpfs", "resident"]
			for (i = 1; i <= n; i++) {
				split(rows[i], row, SUBSEP)
				print link, row[1], row[2], sprintf("%.3f", ns[rows[i]] / base[row[2]])
			}
		}' "$out/out/$link.tsv"
done >"$out/measured.tsv"

awk -F'\t' -v OFS='\t' -v new=$new '
	NR == FNR { measured[$1, $2, $3] = $4; next }
	{ now = measured[$1, $2, $3] }
	new { print $1, $2, $3, now; next }
	{
		good = now != "" && now <= $4 * ($3 ~ /write/ ? 1.15 : 1.05)
		bad = bad || !good
		printf "%s %s, %s, %s: %s, recorded %s\n", good ? "ok" : "not ok", $1, $2, $3, now, $4
	}
	END { exit bad }' "$out/measured.tsv" "$record" >"$out/verdicts" || { cat "$out/verdicts"; exit 1; }
[[ ! $new ]] || cp "$out/verdicts" "$record"
cat "$out/verdicts"
