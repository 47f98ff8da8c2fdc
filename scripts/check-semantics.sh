#!/bin/bash
# SPDX-License-Identifier: MIT
#
# rmem-semantics(7): does each sentence of the sections that promise something name
# its tests, and do they exist? Says what is missing and fails.
#
#   check-semantics.sh [PAGE]
set -euo pipefail

cd "$(dirname "$0")/.."
page=${1:-docs/man/rmem-semantics.7}
bad=0

complain() { # LINE WHAT
	echo "$page:$1: $2"
	bad=1
}

exists() { # TEST
	case $1 in
	e2e/*) [[ -x tests/$1.sh ]] ;;
	unit:*.*)
		local name=${1#unit:}
		grep -rqE "^TEST(_F|_P)?\(${name%.*}, ${name#*.}\)" tests/unit tests/conformance
		;;
	*:*) grep -qE "^TEST(_SECONDS)?\(${1#*:}[,)]" "tests/selftest/${1%%:*}.c" 2>/dev/null ;;
	*) false ;;
	esac
}

# TEXT is what came since the last .HB, from line BEGIN on: one sentence at most.
promises='' text='' begin=0 number=0 macro=''
not_held() { [[ ! $text ]] || complain "$begin" "no .HB after: ${text:0:70}"; }

while IFS= read -r line; do
	number=$((number + 1))
	case $line in
	'.\"'*) continue ;;
	.de*) macro=1 ;;&
	..) macro='' && continue ;;
	esac
	[[ ! $macro ]] || continue
	case $line in
	.SH*)
		not_held
		text=''
		case $line in
		'.SH NAME' | '.SH DESCRIPTION' | '.SH NOT PROMISED' | '.SH SEE ALSO') promises='' ;;
		*) promises=1 ;;
		esac
		;;
	*) [[ $promises ]] || continue ;;&
	.HB*)
		[[ $text == *. ]] || complain "$number" ".HB not after a sentence: ...${text: -40}"
		[[ ${text%.} != *[a-z0-9\)].' '[A-Z]* ]] ||
			complain "$begin" "two sentences before one .HB: ${text:0:70}"
		for test in ${line#.HB}; do
			exists "$test" || complain "$number" "there is no test $test"
		done
		[[ $line == '.HB '* ]] || complain "$number" ".HB without a test"
		text=''
		;;
	.SS* | .PP | .TP | .IP*)
		not_held
		text=''
		;;
	*)
		[[ $text != *. ]] || complain "$number" "no .HB before: ${line:0:70}"
		[[ $text ]] || begin=$number
		text+="${text:+ }$line"
		;;
	esac
done <"$page"
not_held
((number)) || complain 0 "is empty"
exit $bad
