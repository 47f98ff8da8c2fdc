#!/bin/bash
# SPDX-License-Identifier: MIT
#
# kmod.sh [--out DIR] KDIR [MAKE-ARG]...: builds the module against the kernel
# build directory KDIR; the result is build/kmod/RELEASE/rmem.ko.
#
# Kbuild puts objects beside sources, so each kernel gets a tree of links to
# kmod/ and uapi/ under build/kmod/RELEASE: kernels never share objects, and a
# second build redoes only what changed.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
base=$top/build/kmod
if [[ ${1:-} == --out ]]; then
	base=$(mkdir -p "$2" && cd "$2" && pwd)
	shift 2
fi
kdir=$(cd "${1:?usage: kmod.sh [--out DIR] KDIR [MAKE-ARG]...}" && pwd -P) || {
	echo "kmod: no kernel build directory $1" >&2
	exit 1
}
shift

# What uname -r says; Debian's include/config/kernel.release differs.
rel=$(sed -n 's/^#define UTS_RELEASE "\(.*\)"/\1/p' "$kdir/include/generated/utsrelease.h")
out=$base/$rel
mkdir -p "$out/kmod"
exec 9>"$out/.lock"
flock 9

# Links for sources that are new, none for those that are gone; no objects of
# a build that somebody ran in kmod/ itself.
ln -sfn "$top/uapi" "$out/uapi"
(cd "$top/kmod" && find . -type f \
	\( -name '*.[chS]' ! -name '*.mod.c' -o -name 'Kbuild' -o -name 'Makefile' -o -name '*.sh' \) -print0) |
	while IFS= read -r -d '' f; do
		[[ -L $out/kmod/$f ]] || {
			mkdir -p "$(dirname "$out/kmod/$f")"
			ln -s "$top/kmod/$f" "$out/kmod/$f"
		}
	done
find "$out/kmod" -xtype l -delete

make -s --no-print-directory -j"$(nproc)" -C "$kdir" M="$out/kmod" "$@" modules

# A new file rather than new contents: VMs that run hold a link to the old one.
cmp -s "$out/kmod/rmem.ko" "$out/rmem.ko" || install -m 0644 "$out/kmod/rmem.ko" "$out/rmem.ko"
