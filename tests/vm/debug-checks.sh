#!/bin/bash
# SPDX-License-Identifier: MIT
#
# debug-checks.sh MODULE: in the VM, what an instrumented kernel tells only when
# asked: memory that nobody can reach any more, pages that the module has not
# given back, lock checking that went off. Prints a line "NAME: REASON" for
# each that finds something, and details of it to the kernel log. On a kernel
# without these nothing is to be found.
#
# Run it while the module is loaded and has nothing to keep: afterwards the
# addresses in the stacks have no names.
set -uo pipefail

module=$1
debugfs=/sys/kernel/debug

say() {
	echo "$1"
	sed 's/^/debug-checks: /' <<<"$2" | while IFS= read -r line; do echo "$line"; done >/dev/kmsg
}

# Twice, because a first sight is no proof; young objects are passed over. Pipes of the
# shells that run the tests, this one too, and inodes of userfaultfd are reported now and
# then: rmem makes none.
check_leaks() {
	local found
	[[ -w $debugfs/kmemleak ]] || return 0
	sleep 6
	echo scan >$debugfs/kmemleak
	sleep 1
	echo scan >$debugfs/kmemleak
	found=$(awk '/^unreferenced/ { flush() }
		{ object = object $0 "\n" }
		function flush() { if (object !~ /create_pipe_files|new_userfaultfd/) printf "%s", object; object = "" }
		END { flush() }' $debugfs/kmemleak)
	[[ ! $found ]] || say "kmemleak: $(grep -c '^unreferenced' <<<"$found") objects" "$found"
}

# Pages by the stack that allocated them. Slabs come and go with their caches,
# which kmemleak knows about; nodes of the page cache's tree are slab, too.
# The shadow of what vmalloc gives outlives it, and so do the page tables of where it was, and
# the kernel's own record of stacks.
check_pages() {
	local stacks=$debugfs/page_owner_stacks/show_stacks found cpu
	[[ -r $stacks ]] || return 0
	# What one CPU has received for another is freed there, when packets come next.
	for ((cpu = 0; cpu < $(nproc); cpu++)); do
		taskset -c "$cpu" ping -q -c 1 -W 2 127.0.0.1 >/dev/null
	done
	found=$(awk -v RS= -v name="[$module]" '
		index($0, name) && !/alloc_slab|allocate_slab|new_slab|kasan_populate|stack_depot|__pte_alloc_kernel/ &&
		match($0, /nr_base_pages: [0-9]+/) && substr($0, RSTART + 15, RLENGTH - 15) + 0 > 0' $stacks)
	[[ ! $found ]] || say "pages: $(grep -c nr_base_pages <<<"$found") places allocated some that are still there" "$found"
}

check_locks() {
	local on
	[[ -r /proc/lockdep_stats ]] || return 0
	on=$(awk '$1 == "debug_locks:" { print $2 }' /proc/lockdep_stats)
	[[ $on == 1 ]] || echo "lockdep: it went off, after a report or for want of memory"
}

check_leaks
check_pages
check_locks
