#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Do bash, zsh and fish offer, for the programs of build/, the options and
# commands that --help names? Says what is missing or too much and fails. A shell
# that is not installed is left out, with a word about it.
set -euo pipefail

cd "$(dirname "$0")/.."
PATH=$PWD/build:$PATH
bad=0

# What --help names: the options, or, without a dash to begin with, the commands.
helped() { # PROGRAM [COMMAND]
	"$@" --help | grep -oE '^  (-[a-zA-Z],)?--[a-z-]+' | grep -oE -- '--[a-z-]+'
	# Of the program, but good with every command.
	(($# == 1)) || echo --socket
}

# What a shell offers after the given words; the last one is being typed.
in_bash() {
	bash -c '
		source /usr/share/bash-completion/bash_completion
		source tools/completion/rmem.bash
		COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
		_rmem "$1" && printf "%s\n" "${COMPREPLY[@]}"' bash "$@"
}
in_zsh() {
	zsh -f -c '
		compadd() { shift; print -l -- "$@" }
		_files() { print FILES }
		_users() { print USERS }
		words=("$@") CURRENT=$# PREFIX=${@[-1]}
		fpath=(tools/completion)
		autoload -U _rmem
		_rmem' zsh "$@"
}
in_fish() {
	# shellcheck disable=SC2016  # for fish
	fish --no-config -c 'source tools/completion/rmem.fish; complete -C "$argv"' -- "$*" | cut -f1
}

compare() { # SHELL WHAT EXPECTED OFFERED
	local difference
	difference=$(diff <(sort -u <<<"$3") <(sort -u <<<"$4")) || {
		echo "$1: $2: --help (<) and completion (>) differ:"
		grep '^[<>]' <<<"$difference"
		bad=1
	}
}

commands=$(rmemctl --help | sed -n '/^Subcommands:/,$s/^  \([a-z]*\) .*/\1/p')
tried=0
for shell in bash zsh fish; do
	command -v $shell >/dev/null || { echo "completion: no $shell here, left out"; continue; }
	[[ $shell != bash || -e /usr/share/bash-completion/bash_completion ]] ||
		{ echo "completion: no bash-completion here, left out"; continue; }
	tried=$((tried + 1))
	for program in rmemctl rmemd rmem-server; do
		compare $shell $program "$(helped $program)" "$(in_$shell $program --)"
	done
	compare $shell "commands of rmemctl" "$commands" "$(in_$shell rmemctl '')"
	for c in $commands; do
		compare $shell "rmemctl $c" "$(helped rmemctl "$c")" "$(in_$shell rmemctl --socket /x "$c" --)"
	done
	compare $shell "rmemctl attach --on-loss" $'wait\nerror\nkill' "$(in_$shell rmemctl attach a --on-loss '')"
	[[ ! $(in_$shell rmemctl attach a --chunk '') ]] || { echo "$shell: offers something as --chunk"; bad=1; }
done
((tried)) || { echo "completion: no shell to try it with"; bad=1; }
exit $bad
