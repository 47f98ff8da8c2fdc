#!/bin/bash
# SPDX-License-Identifier: MIT
#
# guest-suite.sh TEST... : runs kselftest programs (build/selftest/NAME) and
# end-to-end scripts (tests/e2e/NAME.sh) inside the VM, each in its own session
# and with its own timeout. Writes to /out:
#
#   results.tsv    pass|fail|skip TAB name TAB seconds TAB reason, a case a line
#   current        the test that runs, for whoever finds the VM dead
#   NAME.log       what a test printed
#   failures.log   of each failed test the lines that say why
#   NAME.timeout   of one that took too long: who waited where
set -uo pipefail

scale=${RMEM_TIMEOUT_SCALE:-1}

result() { # STATUS NAME SECONDS REASON
	printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" >>/out/results.tsv
}

# The cases of a TAP stream, one result each. Prints the number of failures.
tap_results() { # NAME LOG
	local name=$1 log=$2 line n=0 bad=0 planned=''
	while IFS= read -r line; do
		case $line in
		1..*) planned=${line#1..} planned=${planned%% *} ;;
		"ok "*"# SKIP"*)
			n=$((n + 1))
			result skip "$name: $(tap_title "${line%%# SKIP*}")" 0 "${line##*# SKIP }"
			;;
		"ok "*)
			n=$((n + 1))
			result pass "$name: $(tap_title "$line")" 0 ''
			;;
		"not ok "*)
			n=$((n + 1)) bad=$((bad + 1))
			result fail "$name: $(tap_title "${line#not }")" 0 ''
			;;
		esac
	done <"$log"
	if [[ $planned && $planned != "$n" ]]; then
		result fail "$name" 0 "planned $planned cases, ran $n"
		bad=$((bad + 1))
	fi
	echo "$bad $n"
}

tap_title() {
	sed -E 's/^ok [0-9]+ *(- *)?//; s/ +$//' <<<"$1"
}

# Who waits where, while a test that takes too long is still there. Not by sysrq: the kernel
# log is judged, and shall have only what the kernel says unasked.
who_waits() {
	local dir stat
	ps axwwf -o pid,ppid,stat,wchan:30,args
	for dir in /proc/[0-9]*/task/[0-9]*; do
		stat=$(sed 's/.*) \(.\).*/\1/' "$dir/stat") || continue
		# Of the kernel's own threads only those that are stuck.
		[[ $stat == D || -e $dir/exe ]] || continue
		printf '\n%s %s %s\n' "${dir##*/}" "$(<"$dir/comm")" "$stat"
		sed 's/^/    /' "$dir/stack"
	done
}

# Seconds that the machine's CPUs have been at work.
busy_is() { # VARIABLE
	local user nice system irq softirq
	read -r _ user nice system _ _ irq softirq _ </proc/stat
	printf -v "$1" %d $(((user + nice + system + irq + softirq) / $(getconf CLK_TCK)))
}

run_test() {
	local file=$1 kind name log limit start status=0 seconds bad=0 n verdict session left from t watcher
	local busy now
	kind=e2e from=$file limit=180
	# Its cases have limits of their own.
	[[ $file == *.sh ]] || kind=selftest from=tests/selftest/$(basename "$file").c limit=300
	name=$kind/$(basename "$file" .sh)
	log=/out/$(basename "$file" .sh).log
	t=$(sed -n "s/^\(#\| \*\) timeout: ${RMEM_LONG:+.*long }\([0-9]*\).*/\2/p" "$from")
	limit=${t:-$limit}

	echo "$name" >/out/current
	echo "rmem-test: $name" >/dev/kmsg
	start=$SECONDS
	busy_is busy
	# A session of its own, so that nothing it started outlives it.
	setsid timeout -k 20 $((limit * scale + 5)) "$file" >"$log" 2>&1 </dev/null &
	session=$!
	(sleep $((limit * scale)) && who_waits >"${log%.log}.timeout") 2>/dev/null &
	watcher=$!
	wait $session || status=$?
	pkill -KILL -s $session
	pkill -P $watcher
	kill $watcher 2>/dev/null
	wait $watcher 2>/dev/null
	seconds=$((SECONDS - start))
	busy_is now
	busy=$((now - busy))
	if ((status == 0)) && left=$(compgen -G '/dev/rmem-*'); then
		echo "left behind: $left" >>"$log"
		status=1
	fi

	if [[ $kind == selftest ]]; then
		read -r bad n < <(tap_results "$name" "$log")
		if ((status == 124 || status == 137)); then
			result fail "$name" "$seconds" "timeout after $limit s"
		elif ((status == 4)); then
			# The whole program, unless it said so case by case.
			((n)) || result skip "$name" "$seconds" "$(grep -m 1 -i skip "$log")"
			status=0
		elif ((status && !bad)); then
			result fail "$name" "$seconds" "exit status $status"
		elif ((!n)); then
			result fail "$name" "$seconds" "printed no test case"
			status=1
		fi
		verdict="$n cases, $bad failed"
	else
		case $status in
		0) result pass "$name" "$seconds" '' ;;
		4) result skip "$name" "$seconds" "$(sed -n 's/^SKIP: //p' "$log" | tail -n 1)" ;;
		124 | 137) result fail "$name" "$seconds" "timeout after $limit s" ;;
		*) result fail "$name" "$seconds" "exit status $status" ;;
		esac
		verdict="exit $status"
	fi

	if ((status == 0 && bad == 0)); then
		echo "ok       $name ($verdict, $seconds s, busy for $busy)"
	elif ((status == 4)); then
		echo "skipped  $name ($seconds s): $(sed -n 's/^SKIP: //p' "$log" | tail -n 1)"
	else
		echo "FAILED   $name ($verdict, $seconds s)"
		tail -n 80 "$log" | sed 's/^/    | /'
		{
			echo "$name:"
			{
				# Of one that was silent until its time was over, what it said last.
				grep -E -B 6 -A 6 '^FAIL|^not ok' "$log" ||
					{ sed '/^--- status$/,$d' "$log" | tail -n 12; }
			} | head -n 16 | sed 's/^/    | /'
		} >>/out/failures.log
	fi
	rm -f /out/current
}

# As a test that was killed may have left it.
flusher=$(sysctl -n vm.dirty_writeback_centisecs)
for t in "$@"; do
	run_test "$t"
	sysctl -q vm.dirty_writeback_centisecs="$flusher"
done

# Whatever ran, no region may be left and the module must go.
if [[ -d /sys/module/rmem ]]; then
	while IFS=: read -r name reason; do
		result fail "$name" 0 "$reason; see the end of the kernel log"
		echo "FAILED   $name:$reason"
	done < <("$(dirname "$0")/debug-checks.sh" rmem)
	if rmmod rmem 2>/tmp/rmmod; then
		result pass "module unloads" 0 ''
	else
		result fail "module unloads" 0 "$(head -n 1 /tmp/rmmod)"
		echo "FAILED   module unloads: $(cat /tmp/rmmod)"
	fi
fi
exit 0
