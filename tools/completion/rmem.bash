# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# Completion of rmemctl, rmemd and rmem-server for bash. What they offer is what
# their --help tells, so it cannot be out of date.

# The options, and what kind of value each takes: "--bind PATH".
_rmem_options() {
	"$@" --help 2>/dev/null |
		sed -nE 's/^  (-[a-zA-Z],)?(--[a-z-]+)( ([A-Z]+).*)?( .*)?$/\2 \4/p'
}

_rmem_commands() {
	"$1" --help 2>/dev/null | sed -nE '/^Subcommands:/,$s/^  ([a-z]+) .*/\1/p'
}

_rmem_regions() {
	local node
	for node in /dev/rmem-*; do
		[[ ! -e $node ]] || echo "${node#/dev/rmem-}"
	done
}

_rmem() {
	local cur prev words cword
	# Addresses and stores have colons and equal signs.
	_get_comp_words_by_ref -n := cur prev words cword || return
	local program=${words[0]} command='' names=0 i
	for ((i = 1; i < cword; i++)); do
		case ${words[i]} in
		--socket) ((++i)) ;;
		-*) ;;
		*)
			if [[ ! $command ]]; then command=${words[i]}; else ((++names)); fi
			;;
		esac
	done
	[[ ${program##*/} == rmemctl ]] || command=''

	local options kind
	options=$(
		_rmem_options "$program" ${command:+"$command"}
		[[ ! $command ]] || _rmem_options "$program" | grep -- '^--socket'
	)
	kind=$(sed -n "s/^$prev //p" <<<"$options" | head -n 1)
	COMPREPLY=()
	case $prev:$kind in
	--*:PATH) _filedir ;;
	--*:DIR) _filedir -d ;;
	--*:USER) mapfile -t COMPREPLY < <(compgen -u -- "$cur") ;;
	--*:POLICY) mapfile -t COMPREPLY < <(compgen -W "wait error kill" -- "$cur") ;;
	--*:WHAT) mapfile -t COMPREPLY < <(compgen -W "none all recorded" -- "$cur") ;;
	--*:?*) ;; # a size, a time: nothing to offer
	*)
		if [[ $cur == -* ]]; then
			mapfile -t COMPREPLY < <(compgen -W "$(cut -d' ' -f1 <<<"$options")" -- "$cur")
		elif [[ ${program##*/} == rmemctl && ! $command ]]; then
			mapfile -t COMPREPLY < <(compgen -W "$(_rmem_commands "$program")" -- "$cur")
		elif [[ $command && $command != attach && $names == 0 ]]; then
			mapfile -t COMPREPLY < <(compgen -W "$(_rmem_regions)" -- "$cur")
		fi
		;;
	esac
} && complete -F _rmem rmemctl rmemd rmem-server
