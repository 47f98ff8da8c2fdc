#!/bin/bash
# SPDX-License-Identifier: MIT
#
# detectors.sh RELEASE: checks that a kernel catches what it is for, an
# instrumented one or a stock one with --memory-checks, and that the rig takes
# note: a broken module does one thing wrong after another. Prints one "ok NAME"
# or "not ok NAME" a line.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
rel=$1
mkdir -p "$top/build/vm"
tmp=$(mktemp -d "$top/build/vm/detectors.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
failed=0

# What tells of each. The lock checker goes off with its first report, and with
# any of KASAN, so those come first, one a boot; what kills the machine, last.
declare -A said=(
	[rcu-unlocked]='suspicious RCU usage'
	[sleep-under-spinlock]='BUG: sleeping function called from invalid context'
	[schedule-under-spinlock]='BUG: scheduling while atomic'
	[lock-inversion]='possible circular locking dependency'
	[lock-kept]='lock held when returning to user space'
	[use-after-free]='BUG: KASAN: slab-use-after-free'
	[out-of-bounds]='BUG: KASAN: slab-out-of-bounds'
	[double-free]='BUG: KASAN: double-free'
	[stack-out-of-bounds]='BUG: KASAN: stack-out-of-bounds'
	[vmalloc-out-of-bounds]='BUG: KASAN: vmalloc-out-of-bounds'
	[freed-page]='BUG: KASAN: use-after-free'
	[bad-shift]='UBSAN: shift-out-of-bounds'
	[bad-index]='UBSAN: array-index-out-of-bounds'
	[refcount]='refcount_t: '
	[freed-timer]='ODEBUG: free active'
	[leak]='kmemleak: .* new suspected memory leaks'
	[leaked-page]='debug-checks: .*leaked_page'
	[freed-page-twice]='VM_BUG_ON|Bad page state|kernel BUG'
	[list-twice]='list_del corruption'
	[past-the-end]='Redzone overwritten'
	[written-after-free]='Poison overwritten'
	[page-written-after-free]='pagealloc: .*(corruption|error)'
	[use-after-sampled-free]='BUG: KFENCE: use-after-free'
	[data-race]='BUG: KCSAN: data-race in racer'
)
boots=(
	"rcu-unlocked sleep-under-spinlock lock-inversion use-after-free out-of-bounds double-free
	stack-out-of-bounds vmalloc-out-of-bounds freed-page bad-shift bad-index refcount freed-timer
	leak leaked-page"
	"lock-kept schedule-under-spinlock freed-page-twice"
	"list-twice"
)
if [[ $rel == *-kcsan ]]; then
	boots=("data-race rcu-unlocked sleep-under-spinlock lock-inversion bad-shift refcount leaked-page")
elif [[ $rel == *-amd64 ]]; then
	said[double-free]='BUG kmalloc-.*already free'
	boots=("past-the-end written-after-free page-written-after-free refcount double-free")
	! grep -q '^CONFIG_KFENCE=y' "$top/build/kernels/$rel"/boot/config-* || boots[0]+=" use-after-sampled-free"
fi

verdict() { # NAME COMMAND...
	local name=$1
	shift
	if "$@"; then
		echo "ok $name"
	else
		echo "not ok $name"
		failed=1
	fi
}

# The part of the kernel log that belongs to a bug. What a dead guest leaves is its
# console's, with carriage returns.
part() { # BUG
	tr -d '\r' <"$tmp/run/dmesg.txt" | awk -v bug="$1" '/detectors: [a-z-]+$/ { on = $NF == bug } on'
}

caught() { # BUG
	part "$1" >"$tmp/part"
	grep -qaE "${said[$1]}" "$tmp/part" || { head -n 40 "$tmp/part" | sed 's/^/# /'; return 1; }
	! "$here/dmesg-check.sh" "$tmp/part" >"$tmp/judged"
}

# Of the checks at the end of a suite.
told() { # CHECK
	grep -q "^$1: " "$tmp/run/stdout.log" || { sed 's/^/# /' "$tmp/run/stdout.log"; return 1; }
}

KDIR=$top/build/kernels/$rel/lib/modules/$rel/build
mkdir -p "$tmp/broken" "$top/build/detectors/$rel"
ln -s "$top"/tests/detectors/* "$tmp/broken/"
make -s -C "$KDIR" M="$tmp/broken" modules
install -m 0644 "$tmp/broken/broken.ko" "$top/build/detectors/$rel/"

for bugs in "${boots[@]}"; do
	read -ra names <<<"${bugs//$'\n'/ }"
	# shellcheck disable=SC2016  # for the guest's shell
	"$here/run.sh" --kernel "$rel" --mem 1024 --memory-checks --no-module --no-dmesg-check --quiet --run-dir "$tmp/run" -- bash -c '
		tell() { echo "detectors: $1" >/dev/kmsg; }
		for bug in "$@"; do
			tell $bug
			insmod build/detectors/$(uname -r)/broken.ko bug=$bug
			[[ $bug != leak* ]] || tests/vm/debug-checks.sh broken
			rmmod broken
		done
		tell end' sh "${names[@]}" >"$tmp/log" 2>&1 || true
	for name in "${names[@]}"; do
		verdict "$rel: $name" caught "$name"
	done
	checks=()
	[[ " ${names[*]} " != *" leaked-page "* ]] || checks+=(pages lockdep)
	[[ " ${names[*]} " != *" leak "* ]] || checks+=(kmemleak)
	for check in "${checks[@]}"; do
		verdict "$rel: a suite's end, $check" told $check
	done
done
exit $failed
