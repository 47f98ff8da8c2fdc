#!/bin/bash
# SPDX-License-Identifier: MIT
#
# `make demo`: shows what rmem does, on a real file, in a throw-away VM. What is
# missing is installed, fetched and built first; this machine's own kernel never
# sees the module. scripts/demo-guest.sh is what happens in the VM.
#
# Everything lands in build/demo: the database, the disk the VM works on, logs.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"
here=build/demo
mkdir -p $here
# mkfs.ext4 of users that are not root
PATH=$PATH:/sbin:/usr/sbin
begun=$SECONDS

die() {
	echo "demo: $*" >&2
	exit 1
}

# step TITLE LOG COMMAND... : one line when it is done; its output only if it fails.
step() {
	local title=$1 log=$here/$2.log start=$SECONDS
	shift 2
	printf '%-58s' "$title ..."
	if ! "$@" >"$log" 2>&1 </dev/null; then
		printf 'FAILED\n\n'
		tail -n 25 "$log" >&2
		die "'$*' failed; all of its output is in $log"
	fi
	printf '%4d s\n' $((SECONDS - start))
}

programs() {
	make --no-print-directory programs
	make --no-print-directory -C examples O="$top/build/examples"
}

module() {
	scripts/kmod.sh "build/kernels/$release/lib/modules/$release/build"
}

# As the disk of the VM wants it: what the server serves survives the VM's
# memory, and the database itself stays as it was built.
disk() {
	rm -rf $here/disk $here/disk.img
	mkdir $here/disk
	ln $here/packages.db $here/disk/packages.db
	truncate -s 1G $here/disk.img
	mkfs.ext4 -q -F -E root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1 -d $here/disk $here/disk.img
}

[[ $(uname -m) == x86_64 ]] || die "rmem runs on x86_64 only, and this is $(uname -m)"

echo "rmem, a demonstration. Nothing of it touches this machine's own kernel."
echo

scripts/deps.sh # says what it installs; silent when nothing is missing

if [[ ! $(tests/vm/kernels.sh list) ]]; then
	echo "Kernels for the VM are fetched from Debian, once (about 200 MB, to build/kernels)."
fi
step "Kernels for the VM" kernels tests/vm/kernels.sh fetch
release=$(tests/vm/kernels.sh list | sort -V | tail -n 1)
[[ $release ]] || die "no kernel could be fetched; $here/kernels.log says more"
first=''
[[ -e build/rmemctl ]] || first=' (some minutes)'
step "Building rmemd, rmem-server and rmemctl$first" programs programs
step "Building the module for Linux $release" module module
if [[ ! -e $here/packages.db || scripts/demo-db.py -nt $here/packages.db ]]; then
	step "A SQLite database of this machine's packages and files" database \
		/usr/bin/python3 scripts/demo-db.py $here/packages.db
fi
step "A disk for the VM, with that database on it" disk disk

printf '%s\n\n' "Booting Linux $release in the VM (emulated: it takes some seconds) ..."
if [[ -t 1 ]]; then
	export RMEM_DEMO_BOLD=yes
fi
status=0
tests/vm/run.sh --kernel "$release" --run-dir $here/vm --keep-scratch $here/disk.img \
	--timeout 600 -- scripts/demo-guest.sh || status=$?
rm -rf $here/disk $here/disk.img

if ((status)); then
	die "the demonstration failed (status $status): see above; the VM's logs are in $here/vm"
fi
echo
echo "The demonstration took $(((SECONDS - begun) / 60)) min $(((SECONDS - begun) % 60)) s in all." \
	"'make vm' is the same VM with a shell, to try things by hand."
