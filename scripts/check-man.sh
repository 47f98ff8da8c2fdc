#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Do the manual pages and the programs of build/ name the same options, commands and
# keys of configuration files, and the examples of these, too? Says what is missing on either
# side and fails.
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

# The keys of a file: which there are, is told to whoever tries another one.
file=$(mktemp)
trap 'rm -f "$file"' EXIT
keys() { # PROGRAM [TABLE]
	printf '%s\nnone = 1\n' "${2:-}" >"$file"
	{ "build/$1" --config "$file" --check-config 2>&1 || true; } | sed -n 's/.*keys here are //p' | tr -d ' ' | tr , '\n'
}
keys_are() { # PROGRAM TABLE...
	local program=$1 known said example=tools/config/$1.toml
	known=$(for table in '' "${@:2}"; do keys "$program" "$table"; done | sort -u)
	said=$(sed 's/\\-/-/g' "docs/man/$program.toml.5" |
		sed -n '/^\.SH KEYS/,/^\.SH [^K]/s/^\.BI \([a-z-]*\) .*/\1/p; s/^\.SS \[*\([a-z]*\)\]*$/\1/p' | sort -u)
	diff <(echo "$known") <(echo "$said") >"$file" || {
		echo "$program.toml.5: keys of the program (<) and of the page (>) differ:"
		grep '^[<>]' "$file"
		bad=1
	}
	sed 's/^#\([^ ]\)/\1/' "$example" >"$file"
	"build/$program" --config "$file" --check-config || { echo "$example: uncommented, it is wrong"; bad=1; }
	for key in $known; do
		grep -qE "^#(\[+$key\]|$key = |.*\{ .*$key = )" "$example" || { echo "$example: $key is missing"; bad=1; }
	done
}
element='export = [{ name = "a", store = "mem://1", allow = [{ none = 1 }] }]'
keys_are rmem-server '[tls]' '[limits]' '[[export]]' "$element"
keys_are rmemd '[tls]' '[region]'
exit $bad
