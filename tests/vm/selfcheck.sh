#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Checks the rig itself: that run.sh brings back what happened in the guest,
# above all when it went wrong. Prints one "ok NAME" or "not ok NAME" a line.
#
#   selfcheck.sh [WANT]...      kernels (default: all that are there)
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
mkdir -p "$top/build/vm"
tmp=$(mktemp -d "$top/build/vm/selfcheck.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
failed=0

# verdict NAME CONDITION-COMMAND...
verdict() {
	local name=$1
	shift
	if "$@"; then
		echo "ok $name"
	else
		echo "not ok $name"
		sed 's/^/# /' "$tmp/log"
		failed=1
	fi
}

# vm STATUS OPTIONS... : runs the VM, its output in $tmp/log; true if it ended
# with STATUS.
vm() {
	local want=$1 got=0
	shift
	"$here/run.sh" --mem 512 --no-module --run-dir "$tmp/run" "$@" >"$tmp/log" 2>&1 || got=$?
	((got == want)) || { echo "expected status $want, got $got" >>"$tmp/log"; return 1; }
}

# What a command with quotes, much output, both streams and a file leaves.
faithful() {
	# shellcheck disable=SC2016  # for the guest's shell
	vm 7 --scratch 64M -- bash -c '
		set -e
		[[ $1 == "a  b" && $2 == "line
two" && $3 == "\$HOME'\''" ]]
		[[ $PWD == "$4" && $RMEM_SELFCHECK == "x y" ]]
		mountpoint -q /scratch
		seq 200000
		echo to-stderr >/dev/stderr
		echo artefact >/out/file
		touch "$4/build/.written" "$4/.written"
		exit 7' sh "a  b" $'line\ntwo' "\$HOME'" "$PWD" &&
		grep -q to-stderr "$tmp/run/stderr.log" &&
		[[ $(md5sum <"$tmp/run/stdout.log") == "$(seq 200000 | md5sum)" ]] &&
		[[ $(cat "$tmp/run/out/file") == artefact ]] &&
		[[ ! -e .written && ! -e build/.written ]]
}

warns() {
	vm 250 -- sh -c 'echo "WARNING: CPU: 0 PID: 1 at nowhere" >/dev/kmsg' &&
		grep -q 'at nowhere' "$tmp/log"
}

times_out() {
	vm 252 --timeout 3 -- sleep 1000 && grep -q 'sleep 1000' "$tmp/run/out/timeout-ps.txt"
}

# What its report says, as lockdep's part of it does, is not the kernel's word.
excused() {
	echo '[    9.000000] 2 locks held by sleep/9:' >>"$tmp/run/dmesg.txt"
	"$here/dmesg-check.sh" "$tmp/run/dmesg.txt" >"$tmp/log" || return 1
	sed -i '1i [    0.000000] INFO: task sleep:9 blocked for more than 120 seconds.' "$tmp/run/dmesg.txt"
	! "$here/dmesg-check.sh" "$tmp/run/dmesg.txt" >"$tmp/log"
}

panics() {
	vm 251 -- sh -c 'echo c >/proc/sysrq-trigger; sleep 100' && grep -q 'the guest died' "$tmp/log"
}

ooms() {
	vm 250 -- bash -c 'tail /dev/zero & wait; exit 0' && grep -q 'Out of memory' "$tmp/log"
}

# The other machine keeps what its disk was told to keep, and nothing else.
loses_power() {
	vm 0 --peer 512 -- bash -c '
		set -e
		peer=tests/vm/peer.py
		$peer wait
		$peer run bash -c "echo kept >/scratch/f; sync; echo lost >>/scratch/f"
		[[ $($peer run cat /scratch/f) == kept?lost ]]
		$peer reset
		$peer wait
		[[ $($peer run cat /scratch/f) == kept ]]
		! $peer run false' && grep -q 'EXT4-fs (vda): recovery complete' "$tmp/run/dmesg.txt"
}

cd "$top"
export RMEM_SELFCHECK="x y"
(($#)) || mapfile -t kernels < <("$here/kernels.sh" list)
(($#)) && kernels=("$@")
for k in "${kernels[@]}"; do
	verdict "$k: exit status 0" vm 0 --kernel "$k" -- true
done
export RMEM_DMESG_ALLOW=
verdict "status 7, arguments, output, files" faithful
verdict "a warning in the kernel log fails the run" warns
verdict "an OOM kill fails the run" ooms
verdict "a timeout is reported" times_out
verdict "a timeout is no trouble in the kernel log" excused
verdict "a panic is reported" panics
verdict "a second VM, which loses power" loses_power
exit $failed
