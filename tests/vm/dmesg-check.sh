#!/bin/bash
# SPDX-License-Identifier: MIT
#
# dmesg-check.sh FILE: judges a kernel log; prints the lines that tell of
# trouble, then what follows the first of them, and fails if there are any.
set -euo pipefail

file=$1
if [[ ! -s $file ]]; then
	echo "dmesg: no kernel log to judge in $file"
	exit 1
fi

trouble=(
	'WARNING:' 'BUG:' 'BUG at' '\bOops\b' 'kernel BUG' 'Kernel panic' 'Internal error'
	'general protection fault' 'unable to handle' 'double fault' 'stack guard page'
	# hangs
	'INFO: task .* blocked' 'soft lockup' 'hard LOCKUP' 'rcu.*(detected|self-detected) stall'
	'rcu.*kthread starved' 'workqueue lockup'
	# lockdep and friends
	'possible recursive locking' 'possible circular locking' 'possible irq lock inversion'
	'inconsistent lock state' 'suspicious RCU usage' 'held lock freed' 'lock held when returning'
	'scheduling while atomic' 'sleeping function called' 'invalid wait context'
	'DEADLOCK' 'bad unlock balance' 'locks held by'
	# memory
	'KASAN' 'KFENCE' 'KCSAN' 'UBSAN' 'Bad page' 'bad pte' 'refcount_t' 'list_(add|del) corruption'
	'BUG [A-Za-z]' 'pagealloc: .*(corruption|error)' # of slabs, no colon; of poisoned pages
	'^\[[ 0-9.]*\] debug-checks:' 'still has .* objects' 'Objects remaining' '\bleak(ed)?\b'
	'nobody cared' 'nonzero mapcount' 'page_owner.*corrupt' 'Page has been migrated'
	'VFS: Busy inodes' 'Dentry still in use' 'cache `.*'\''.*left'
	'[Oo]ut of memory' 'oom-kill' 'oom_reaper' 'page allocation failure' 'invoked oom-killer'
	# our programs and module
	'(rmemd|rmem-server|rmemctl|rmem-bench)\[[0-9]+\]: segfault' 'rmem(d|-server|ctl|-bench)?\[[0-9]+\].*(trap|general protection)'
	'rmem:.*(disagrees about version|Unknown symbol|init returned)'
	'Buffer I/O error on dev' 'EXT4-fs error' 'lost async page write'
)

# Not trouble, each with its reason.
allowed=(
	# A module from outside the kernel tree, unsigned: what we are.
	'loading out-of-tree module taints kernel'
	'module verification failed: signature and/or required key missing'
	# That it is there; what it finds is told by debug-checks.sh.
	'kmemleak: Kernel memory leak detector initialized'
	# A fault that found no memory is tried again: by selftest/nth, on purpose.
	'Huh VM_FAULT_OOM leaked out to the #PF handler'
	# The processor's faults, not ours.
	'CPU bug present.*data leak possible'
)

join() {
	local IFS='|'
	echo "$*"
}

# RMEM_DMESG_ALLOW: one more extended regular expression, for a test that
# provokes a line on purpose.
allow=$(join "${allowed[@]}")${RMEM_DMESG_ALLOW:+|$RMEM_DMESG_ALLOW}
# What the rig asks for when a command does not end (guest-init.sh) tells of waiting, not of trouble.
found=$(awk '/rmem-rig: a timeout/ { off = 1 } /^== the peer/ { off = 0 } { print off ? "" : $0 }' "$file" |
	grep -a -n -E "$(join "${trouble[@]}")" | grep -a -v -E "$allow" || true)
[[ -n $found ]] || exit 0
echo "dmesg: trouble in $file:"
head -n 40 <<<"$found"
first=${found%%:*}
echo "dmesg: after the first:"
sed -n "$((first + 1)),$((first + 16))p" "$file"
exit 1
