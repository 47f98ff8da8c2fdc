#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The module under DKMS.
#
#   dkms.sh source DIR     the source tree that DKMS works on, as DIR
#   dkms.sh install        put it into /usr/src, and build and install the
#                          module for every kernel whose headers are there;
#                          kernels that dkms.conf excludes are skipped
#   dkms.sh uninstall      remove the module from every kernel, and the source
#
# With DESTDIR, install and uninstall only put the source there or remove it;
# so do they, but for a word about it, where there is no dkms.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
conf=$top/dkms.conf
name=$(sed -n 's/^PACKAGE_NAME="\(.*\)"/\1/p' "$conf")
version=$(sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' "$conf")
source=${DESTDIR:-}/usr/src/$name-$version
PATH=$PATH:/usr/sbin:/sbin

skipped=77 # DKMS's status for a kernel that dkms.conf excludes

# Sources alone: none of what a build in kmod/ leaves behind.
copy_source() { # DIR
	local f
	(cd "$top" && find kmod uapi -type f \
		\( -name '*.[ch]' ! -name '*.mod.c' -o -name Kbuild -o -name Makefile -o -name '*.yaml' \) -print0) |
		while IFS= read -r -d '' f; do
			install -D -m 0644 "$top/$f" "$1/$f"
		done
	install -m 0644 "$conf" "$1/dkms.conf"
}

have_dkms() {
	[[ ! ${DESTDIR:-} ]] || return 1
	command -v dkms >/dev/null || {
		echo "dkms: there is no dkms here (Debian: apt install dkms)" >&2
		return 1
	}
}

uninstall() {
	if have_dkms && [[ $(dkms status -m "$name" -v "$version") ]]; then
		dkms remove -m "$name" -v "$version" --all
	fi
	rm -rf "$source"
}

install_all() {
	local kernel status bad=0
	uninstall
	copy_source "$source"
	echo "dkms: $source"
	have_dkms || return 0
	dkms add -m "$name" -v "$version"
	for kernel in /lib/modules/*/; do
		kernel=$(basename "$kernel")
		[[ -e /lib/modules/$kernel/build/include ]] || continue
		status=0
		dkms install -m "$name" -v "$version" -k "$kernel" || status=$?
		case $status in
		0) ;;
		"$skipped") echo "dkms: $kernel: not supported, skipped" ;;
		*)
			echo "dkms: $kernel: failed (status $status)" >&2
			bad=1
			;;
		esac
	done
	return $bad
}

case ${1:-} in
source) copy_source "${2:?where?}" ;;
install) install_all ;;
uninstall) uninstall ;;
*)
	sed -n '3,/^set /s/^# \{0,1\}//p' "$0" >&2
	exit 2
	;;
esac
