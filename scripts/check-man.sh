#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Do the manual pages and the programs of build/ name the same options and
# commands? Says what is missing on either side and fails.
set -euo pipefail

cd "$(dirname "$0")/.."
bad=0

# Long options and, after "Subcommands:", the commands.
helped() { # PROGRAM [COMMAND]
	"build/$1" "${@:2}" --help | grep -oE '^  (-[a-zA-Z],)?--[a-z-]+' | grep -oE -- '--[a-z-]+'
}

for program in rmemd rmem-server rmemctl; do
	page=$(sed 's/\\-/-/g' "docs/man/$program.8")
	options=$(helped $program)
	if [[ $program == rmemctl ]]; then
		commands=$(build/rmemctl --help | sed -n '/^Subcommands:/,$s/^  \([a-z]*\) .*/\1/p')
		for c in $commands; do
			options+=$'\n'$(helped rmemctl "$c")
			grep -qx "\.SS $c" <<<"$page" || { echo "rmemctl.8: no section about '$c'"; bad=1; }
		done
		for c in $(sed -n 's/^\.SS //p' <<<"$page"); do
			grep -qxF "$c" <<<"$commands" || { echo "rmemctl.8: rmemctl has no command '$c'"; bad=1; }
		done
	fi
	documented=$(grep -E '^\.(TP|B|BI|BR) ' <<<"$page" | grep -oE -- '--[a-z-]+' | sort -u)
	for o in $(sort -u <<<"$options"); do
		grep -qxF -- "$o" <<<"$documented" || { echo "$program.8: $o is missing"; bad=1; }
	done
	for o in $documented; do
		grep -qxF -- "$o" <<<"$options" || { echo "$program.8: $program has no $o"; bad=1; }
	done
done
exit $bad
