#!/bin/bash
# SPDX-License-Identifier: MIT
#
# `make test`: installs what is missing, builds everything and runs every test,
# those that need the module in VMs. The last line is
# "N passed, N failed, N skipped"; the status is 0 only if something ran and
# nothing failed.
#
#   RMEM_ONLY=REGEX      only what matches: unit/plain, unit/asan, unit/tsan,
#                        rig, bench-gate, packaging/NAME, selftest/NAME, e2e/NAME; detectors
#   RMEM_KERNELS="6.1"   these kernels, each test on each of them (6.12-kasan: an
#                        instrumented one, `make check-kmod-debug`). Without this,
#                        RMEM_ONLY or RMEM_LONG an end-to-end test runs on one
#                        of the kernels, which the seed chooses
#   RMEM_SEED=N          the chance in the tests, repeated
#   RMEM_LONG=yes        the tests that have a long form, in it, and nothing
#                        else: `make check-long`; `simulation` is one of them
#   RMEM_SIMULATIONS=N   seeds of the simulation (200; 5000 in the long form)
#   RMEM_STRICT=yes      no second try for a test that fails in a VM
#   RMEM_VM_JOBS=N       VMs at a time (default: three for two CPUs)
#   RMEM_TIMEOUT_SCALE=N more patience, for slow machines
set -uo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top" || exit 1
. tests/cpu_time.sh
only=${RMEM_ONLY:-}
build=$top/build
logs=$build/test
results=$logs/results.tsv
failures=$logs/failures.log
rm -rf "$logs"
mkdir -p "$logs"
: >"$results"

export RMEM_SEED=${RMEM_SEED:-$((SRANDOM % 1000000))}
echo "test: RMEM_SEED=$RMEM_SEED"

wanted() { # KIND/NAME
	[[ ! $only || $1 =~ $only ]] || return 1
	if [[ ${RMEM_LONG:-} ]]; then says "$1" 'timeout: .*long '; else ! says "$1" 'timeout: long '; fi
}
# What the head of a test says that has a long form, or no other.
says() { # KIND/NAME REGEX
	case $1 in
	e2e/*) grep -q "^# $2" "tests/$1.sh" ;;
	selftest/*) grep -q "^ \* $2" "tests/$1.c" ;;
	*) false ;;
	esac
}

# done_with NAME SECONDS-AT-START CPU-AT-START
done_with() {
	local now
	cpu_is now
	echo "== $1: $((SECONDS - $2)) s, of CPU time $((now - $3)) s"
}

result() { # STATUS NAME SECONDS REASON
	printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" >>"$results"
}

# What was skipped: the cases of one file (of the unit tests, of one suite) that have one
# reason are one line.
skips() {
	awk -F'\t' '
		$1 == "skip" {
			file = $2
			if (file ~ /^unit\//) sub(/\..*/, "", file); else sub(/: .*/, "", file)
			key = file FS $4
			if (!n[key]++) { keys[++count] = key; name[key] = $2 }
			of[key] = file
			why[key] = $4
		}
		END {
			for (i = 1; i <= count; i++) {
				key = keys[i]
				printf "skipped: %s: %s\n", n[key] == 1 ? name[key] : of[key] " (" n[key] " cases)", why[key]
			}
		}' "$results"
}

summary() {
	local passed failed skipped left
	trap - EXIT
	left=$(jobs -rp)
	[[ ! $left ]] || kill $left
	passed=$(grep -cE '^(pass|unsteady)' "$results")
	failed=$(grep -c '^fail' "$results")
	skipped=$(grep -c '^skip' "$results")
	echo
	echo "slowest:"
	sort -t $'\t' -k3,3nr "$results" | head -n 10 | awk -F'\t' '$3 > 0 { printf "  %5d s  %s\n", $3, $2 }'
	skips
	# The more it matters, the closer to the end: who sees a run of others sees only that.
	[[ ! -s $failures ]] || cut -c1-200 "$failures" | tail -n 40
	awk -F'\t' '$1 == "unsteady" { printf "UNSTEADY (passed when run again): %s: %s\n", $2, $4 }' "$results"
	awk -F'\t' '$1 == "fail" { printf "FAILED: %s: %s\n", $2, $4 }' "$results"
	echo "test: RMEM_SEED=$RMEM_SEED; $SECONDS s in all; logs in ${logs#"$top"/}"
	((passed + failed)) || echo "test: nothing ran"
	echo "$passed passed, $failed failed, $skipped skipped"
	((passed > 0 && failed == 0)) || exit 1
	exit 0
}
trap summary EXIT
trap 'result fail interrupted 0 "by a signal"; exit 1' INT TERM

# step NAME COMMAND... : what the tests need; without it there is nothing to
# test, so failing here ends the run.
step() {
	local name=$1 start=$SECONDS cpu
	shift
	cpu_is cpu
	echo "== $name"
	if ! "$@"; then
		result fail "$name" $((SECONDS - start)) "see above"
		exit 1
	fi
	done_with "$name" "$start" "$cpu"
}

# --- build ------------------------------------------------------------------

step "deps" scripts/deps.sh
step "QUIC" scripts/quic.sh
# What is not of rmem in C++, beside that: much of its time is the network's and the disk's, and
# little of it has work for two CPUs.
beside() {
	make -s kernels && make -s kmod-fetched && make -s selftest && make -s load &&
		{ [[ ! -e examples/Makefile ]] || make -s -C examples O="$build/examples"; }
}
beside >"$logs/build-beside.log" 2>&1 &
beside=$!
beside_is_built() {
	local status=0
	wait $beside || status=$?
	cat "$logs/build-beside.log"
	return $status
}
step "build user space" make -s user
step "kernels, the module, tests and examples in C" beside_is_built
mapfile -t kernels < <(tests/vm/kernels.sh list)
for k in $(tests/vm/kernels.sh missing); do
	result skip "kernel $k" 0 "this Debian release has no $k kernel"
done

# --- on this machine, beside the VMs ------------------------------------------

build_unit() { # NAME DIRECTORY [CMAKE-ARG]...
	local name=$1 dir=$2 start=$SECONDS cpu log=$logs/build-${1//\//-}.log
	shift 2
	cpu_is cpu
	echo "== build $name"
	if ! { cmake -S daemon -B "$dir" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo "$@" &&
		cmake --build "$dir" -j "$compilers"; } >"$log" 2>&1; then
		tail -n 60 "$log"
		result fail "$name" $((SECONDS - start)) "does not build"
		return 1
	fi
	done_with "build $name" "$start" "$cpu"
}

unit() { # NAME DIRECTORY [CMAKE-ARG]...
	local name=$1 dir=$2 start cpu runner=() log=$logs/${1//\//-}.log
	wanted "$name" || return 0
	build_unit "$@" || return 0
	start=$SECONDS
	cpu_is cpu
	echo "== $name"
	# ThreadSanitizer does not cope with the address space layout
	# randomisation of newer kernels.
	[[ $name != unit/tsan ]] || runner=(setarch -R)
	rm -rf "$dir/results"
	"${runner[@]}" ctest --test-dir "$dir" -j"$(nproc)" --no-tests=error \
		--output-on-failure --output-junit "$log.xml" >"$log" 2>&1
	# A program that ran as a whole has left the results of its cases, unless it died.
	/usr/bin/python3 - "$log.xml" "$name" "$dir/results" >>"$results" <<-'PYTHON' || result fail "$name" 0 "ctest did not run"
		import json, os, re, sys, xml.etree.ElementTree as tree
		def row(status, name, seconds, reason):
		    print(status, f"{sys.argv[2]}: {name}", round(seconds), " ".join(reason.split()), sep="\t")
		def rows_of(path):  # whether one of them has failed
		    any_failed = False
		    with open(path) as file:
		        cases = [case for suite in json.load(file)["testsuites"] for case in suite["testsuite"]]
		    for case in (case for case in cases if case["status"] == "RUN"):
		        wrong = [one["failure"] for one in case.get("failures", [])]
		        skipped = [one["message"] for one in case.get("skipped", [])]
		        status = "fail" if wrong else "skip" if case["result"] == "SKIPPED" else "pass"
		        row(status, case["classname"] + "." + case["name"], float(case["time"].rstrip("s")),
		            " ".join(wrong or skipped))
		        any_failed = any_failed or bool(wrong)
		    return any_failed
		for test in tree.parse(sys.argv[1]).getroot().iter("testcase"):
		    name, seconds = test.get("name"), float(test.get("time") or 0)
		    status = {"run": "pass", "fail": "fail"}.get(test.get("status"), "skip")
		    said = test.findtext("system-out") or ""
		    nodes = [n for tag in ("failure", "skipped") for n in test.iter(tag)]
		    reason = " ".join(n.get("message") or "" for n in nodes)
		    whole = os.path.join(sys.argv[3], name + ".json")
		    if os.path.exists(whole):
		        if rows_of(whole) or status == "pass":
		            continue
		        reason = "every case is well, but not the program: see the log"
		    elif status == "skip":  # GoogleTest's words, not ctest's
		        reason = said.partition("Skipped\n")[2].split("\n")[0] or reason
		    elif status == "fail" and (begun := re.findall(r"\[ RUN +\] (\S+)", said)):
		        reason += " in " + begun[-1]
		    row(status, name, seconds, reason)
	PYTHON
	grep -A 60 -E '^ *[0-9]+/[0-9]+ Test.*\*\*\*' "$log" | head -n 200
	grep -E 'tests passed|No tests' "$log"
	rm -f "$log.xml"
	done_with "$name" "$start" "$cpu"
}

# The seeds of the simulation that an ordinary run has no time for.
if [[ ${RMEM_LONG:-} && (! $only || simulation =~ $only) ]]; then
	start=$SECONDS
	echo "== simulation"
	if RMEM_SIMULATIONS=${RMEM_SIMULATIONS:-5000} "$build/cmake/tests/simulation_test" >"$logs/simulation.log" 2>&1; then
		result pass simulation $((SECONDS - start)) ''
	else
		grep -A 8 'Failure' "$logs/simulation.log"
		result fail simulation $((SECONDS - start)) "see ${logs#"$top"/}/simulation.log"
	fi
	grep -E '^(simulation|sweep):' "$logs/simulation.log"
	echo "== simulation: $((SECONDS - start)) s"
fi

# A check of ours, which prints lines "ok NAME" and "not ok NAME". One that fails without
# a "not ok", or has no verdict at all, could not do its work.
verdicts() { # PREFIX COMMAND...
	local prefix=$1 line last='' good=0 bad=0 status=0
	shift
	while read -r line; do
		echo "$line"
		last=$line
		case $line in
		"ok "*) good=$((good + 1)) && result pass "$prefix: ${line#ok }" 0 '' ;;
		"not ok "*) bad=$((bad + 1)) && result fail "$prefix: ${line#not ok }" 0 '' ;;
		esac
	done < <("$@" 2>&1)
	wait $! || status=$?
	if ((!bad && (status || !good))); then
		result fail "$prefix" 0 "$*: exit status $status after $good verdicts: $last"
	fi
}

check() { # PREFIX TITLE COMMAND...
	local prefix=$1 title=$2 start=$SECONDS cpu
	shift 2
	wanted "$prefix" || return 0
	cpu_is cpu
	echo "== $title"
	verdicts "$prefix" "$@"
	done_with "$title" "$start" "$cpu"
}

packaging() { # NAME
	local start=$SECONDS status=0 log=$logs/packaging-$1.log cpu
	wanted "packaging/$1" || return 0
	cpu_is cpu
	echo "== packaging/$1"
	"tests/packaging/$1.sh" >"$log" 2>&1 || status=$?
	case $status in
	0) result pass "packaging/$1" $((SECONDS - start)) '' ;;
	4) result skip "packaging/$1" 0 "$(sed -n 's/^skip: //p' "$log")" ;;
	*)
		tail -n 40 "$log"
		result fail "packaging/$1" $((SECONDS - start)) "see ${log#"$top"/}"
		;;
	esac
	done_with "packaging/$1" "$start" "$cpu"
}

# --- in VMs -----------------------------------------------------------------

# What a test makes the kernel say on purpose, as a regular expression.
dmesg_allowed() { # FILE...
	(($# > 1)) || sed -n 's/^# dmesg: *//p' "$1"
}

test_limit() { # FILE: its timeout
	local t from=$1 otherwise=180
	[[ $1 == *.sh ]] || from=tests/selftest/$(basename "$1").c otherwise=300
	t=$(sed -n "s/^\(#\| \*\) timeout: ${RMEM_LONG:+.*long }\([0-9]*\).*/\2/p" "$from")
	echo "${t:-$otherwise}"
}

is_instrumented() { # RELEASE
	[[ $1 != *-amd64 ]]
}

tag() { # RELEASE
	local series
	series=$(cut -d. -f1,2 <<<"$1")
	! is_instrumented "$1" || series+=-${1##*-}
	echo "$series"
}

vm_job() { # RELEASE JOB OPTION... -- TEST...
	local rel=$1 job=$2 opts=() dir=$logs/$1/$2 limit=120 t status=0 start=$SECONDS cpu tag
	shift 2
	cpu_is cpu
	if is_instrumented "$rel"; then
		# A fault takes eight times as many instructions there.
		local -x RMEM_TIMEOUT_SCALE=${RMEM_TIMEOUT_SCALE:-8}
		[[ " $* " == *" --mem "* ]] || opts+=(--mem 2048)
	fi
	while [[ $1 != -- ]]; do
		opts+=("$1")
		shift
	done
	shift
	for t in "$@"; do
		limit=$((limit + $(test_limit "$t") + 30))
	done
	tag=$(tag "$rel")
	tests/vm/run.sh --kernel "$rel" --run-dir "$dir" --no-dmesg-check --timeout $limit \
		"${opts[@]}" -- tests/vm/guest-suite.sh "$@" 2>&1 </dev/null | sed -u "s/^/[$tag] /"
	status=${PIPESTATUS[0]}
	[[ ! -e $dir/out/failures.log ]] || sed "s/^/[$tag] /" "$dir/out/failures.log" >>"$failures"

	[[ ! -e $dir/out/results.tsv ]] ||
		awk -F'\t' -v OFS='\t' -v k="$tag" '{ $2 = k " " $2; print }' "$dir/out/results.tsv" >>"$results"
	if ((status)); then
		result fail "$tag $job: VM" $((SECONDS - start)) \
			"status $status in $(cat "$dir/out/current" 2>/dev/null || echo 'no test'); see ${dir#"$top"/}"
	fi
	if RMEM_DMESG_ALLOW=$(dmesg_allowed "$@") tests/vm/dmesg-check.sh "$dir/dmesg.txt" >"$dir/dmesg-check.log"; then
		result pass "$tag $job: kernel log" $((SECONDS - start)) ''
	else
		sed "s/^/[$tag] /" "$dir/dmesg-check.log"
		awk -v tag="[$tag] " '/^dmesg: after/ { on = 1 } NR < 7 || on { print tag $0 }' "$dir/dmesg-check.log" >>"$failures"
		result fail "$tag $job: kernel log" $((SECONDS - start)) "see ${dir#"$top"/}/dmesg.txt"
	fi
	done_with "$tag $job" "$start" "$cpu"
}

# At most this many at a time: each keeps one CPU busy for two thirds of its time.
parallel=${RMEM_VM_JOBS:-$((($(nproc) * 3 + 1) / 2))}
spawn() { # COMMAND...
	while (($(jobs -rp | wc -l) >= parallel)); do
		wait -n
	done
	"$@" &
}

# Whether an end-to-end test runs on a kernel: twice the time for each of them is too much for
# every day, and the seeds see to it that none is left out for long.
share=0
((${#kernels[@]} < 2)) || [[ ${RMEM_KERNELS:-}$only${RMEM_LONG:-} ]] || share=${#kernels[@]}
on() { # INDEX-OF-KERNEL INDEX-OF-TEST
	((!share || (RMEM_SEED + $2) % share == $1))
}

selftests=() tests=() own=() shared=()
for t in build/selftest/*; do
	[[ -f $t && -x $t ]] && wanted "selftest/${t##*/}" && selftests+=("$t")
done
for t in tests/e2e/*.sh; do
	[[ -x $t ]] && wanted "e2e/$(basename "$t" .sh)" && tests+=("$t")
done
for t in "${tests[@]}"; do
	if [[ ${RMEM_LONG:-} ]] || grep -q '^# vm:' "$t"; then own+=("$t"); else shared+=("$t"); fi
done

((!${#own[@]})) || mapfile -t own < <(for t in "${own[@]}"; do echo "$(test_limit "$t") $t"; done | sort -srn | cut -d' ' -f2)

if ((${#selftests[@]} + ${#tests[@]})); then
	echo "== in VMs: ${kernels[*]}"
	((${#kernels[@]})) || result fail "VMs" 0 "no kernel to boot"
fi
# The long ones first: what is yet to be compiled, what shares a VM, then those of their own, by
# their time limits.
compilers=1
((${#selftests[@]} + ${#tests[@]})) || compilers=$(nproc)
# By clang, which takes half as long as gcc for that, and finds other things.
spawn unit unit/asan "$build/cmake-asan" -DCMAKE_CXX_COMPILER=clang++ -DRMEM_SANITIZE=address
spawn unit unit/tsan "$build/cmake-tsan" -DCMAKE_CXX_COMPILER=clang++ -DRMEM_SANITIZE=thread
mapfile -t opts < <(tests/vm/test-options.sh "${selftests[0]:-}")
for k in "${!kernels[@]}"; do
	suite=()
	for i in "${!shared[@]}"; do ! on "$k" "$i" || suite+=("${shared[i]}"); done
	((!${#suite[@]})) || spawn vm_job "${kernels[k]}" suite --scratch 4G -- "${suite[@]}"
	((!${#selftests[@]})) || spawn vm_job "${kernels[k]}" selftests "${opts[@]}" -- "${selftests[@]}"
done
for i in "${!own[@]}"; do
	mapfile -t opts < <(tests/vm/test-options.sh "${own[i]}")
	for k in "${!kernels[@]}"; do
		! on "$k" "$i" || spawn vm_job "${kernels[k]}" "$(basename "${own[i]}" .sh)" "${opts[@]}" -- "${own[i]}"
	done
done
spawn unit unit/plain "$build/cmake"
spawn check rig rig tests/vm/selfcheck.sh
for rel in "${kernels[@]}"; do spawn check detectors "detectors of $rel" tests/vm/detectors.sh "$rel"; done
for rel in "${kernels[@]}"; do
	[[ ! -e tests/bench/recorded-$(tag "$rel").tsv ]] || spawn check bench-gate "bench-gate" tests/bench/gate.sh "$rel"
done
spawn packaging dkms
spawn packaging units
wait

# --- once more --------------------------------------------------------------

# Emulated CPUs on a host that is busy with others can keep a task waiting for longer than
# a test thought possible. So one that failed runs again, alone. If it passes then, it is
# unsteady: named in the summary, its first log kept, to be looked into. Several at once
# are no accident; what the kernel log says and wrong bytes are never tried again.
once_more() {
	local name tag file rel again=$logs/again.tsv failed
	mapfile -t failed < <(awk -F'\t' '$1 == "fail" && $2 ~ /^[0-9.]+ (selftest|e2e)\// {
		sub(/:.*/, "", $2); print $2 }' "$results" | sort -u)
	((${#failed[@]} <= 3)) || return 0
	for name in "${failed[@]}"; do
		tag=${name%% *} file=${name#* }
		for rel in "${kernels[@]}"; do [[ $(tag "$rel") != "$tag" ]] || break; done
		case $file in
		selftest/*) file=build/$file ;;
		*) file=tests/$file.sh ;;
		esac
		# Wrong bytes, as rmem-load and rmem-fsx tell of them: what chance has found, a second
		# try may well miss.
		! grep -qE '[,;] want (seq|write|[0-9]+ to) ' "$logs/$rel"/*/out/"$(basename "$file" .sh).log" || continue
		mapfile -t opts < <(tests/vm/test-options.sh "$file")
		: >"$again"
		results=$again vm_job "$rel" "again-$(basename "$file" .sh)" "${opts[@]}" -- "$file"
		! grep -q '^fail' "$again" || continue
		awk -F'\t' -v OFS='\t' -v name="$name" '
			$1 == "fail" && ($2 == name || index($2, name ":") == 1) { $1 = "unsteady" }
			{ print }' "$results" >"$again" && mv "$again" "$results"
	done
}
[[ ${RMEM_LONG:-}${RMEM_STRICT:-} ]] || once_more
