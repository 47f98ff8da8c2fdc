#!/bin/bash
# SPDX-License-Identifier: MIT
#
# `make fuzz`: builds the fuzz targets with clang and runs each, the corpora of
# tests/fuzz/corpus to begin with. What is found on the way is kept in
# build/fuzz/corpus/NAME, what breaks a target in build/fuzz/found/NAME-*.
#
#   FUZZ_SECONDS=N   of CPU time for each target (default 60)
#   FUZZ_ONLY=REGEX  only these
#   FUZZ_MERGE=yes   then leaves in tests/fuzz/corpus/NAME the fewest inputs that
#                    reach all that has been reached
set -uo pipefail

top=$(cd "$(dirname "$0")/../.." && pwd)
cd "$top" || exit 1
. tests/cpu_time.sh
build=$top/build/fuzz
seconds=${FUZZ_SECONDS:-60}

scripts/deps.sh || exit 1
compiler=$(command -v clang++ || command -v clang++-14) || {
	echo "fuzz: there is no clang++" >&2
	exit 1
}
cmake -S daemon -B "$build" -G Ninja -DRMEM_FUZZ=ON -DCMAKE_CXX_COMPILER="$compiler" \
	-DCMAKE_BUILD_TYPE=RelWithDebInfo >/dev/null && cmake --build "$build" || exit 1

begun=0 used=0
# libFuzzer counts seconds of the clock, of which a busy machine gives it few.
fuzz() { # NAME SECONDS ARGUMENT...
	local name=$1 seconds=$2 status=0
	shift 2
	cpu_is begun
	for ((used = 0; used < seconds && !status; )); do
		"$build/tests/fuzz/fuzz_$name" "$@" -max_total_time=$((seconds - used)) </dev/null || status=$?
		cpu_is used
		used=$((used - begun))
	done
	return $status
}

broken=0
mkdir -p "$build/found"
for seeds in tests/fuzz/corpus/*/; do
	name=$(basename "$seeds")
	[[ ! ${FUZZ_ONLY:-} || $name =~ $FUZZ_ONLY ]] || continue
	program=$build/tests/fuzz/fuzz_$name
	corpus=$build/corpus/$name
	words=()
	[[ ! -e tests/fuzz/$name.dict ]] || words=("-dict=tests/fuzz/$name.dict")
	mkdir -p "$corpus"
	echo "== $name"
	fuzz "$name" "$seconds" "${words[@]}" -max_len=4096 -timeout=20 -rss_limit_mb=1024 \
		-print_final_stats=1 -artifact_prefix="$build/found/$name-" "$corpus" "$seeds" \
		>"$build/$name.log" 2>&1 || {
		broken=$((broken + 1))
		tail -n 40 "$build/$name.log"
		echo "fuzz: $name: broken by build/fuzz/found/$name-*" >&2
	}
	awk -v used="$used" '/number_of_executed_units/ { n += $2 } END { print "fuzz: " n " inputs in " used " s of CPU time" }' \
		"$build/$name.log"
	if [[ ${FUZZ_MERGE:-} ]]; then
		mkdir -p "$build/merged" && rm -rf "$build/merged/$name" && mkdir "$build/merged/$name"
		"$program" -merge=1 "$build/merged/$name" "$corpus" "$seeds" >>"$build/$name.log" 2>&1 </dev/null &&
			rm -rf "$seeds" && cp -r "$build/merged/$name" "$seeds"
	fi
done
((broken == 0))
