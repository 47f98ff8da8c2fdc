#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What make install puts below DESTDIR: systemd finds nothing wrong with the
# units, nor more exposed than is stated here, and make uninstall leaves nothing.
# The report of systemd-analyze security is kept in build/packaging.
# Status 4: cannot be tried here.
set -euo pipefail

top=$(cd "$(dirname "$0")/../.." && pwd)
cd "$top"
work=$top/build/packaging
root=$work/root

command -v systemd-analyze >/dev/null || { echo "skip: no systemd-analyze here"; exit 4; }
fail() {
	echo "FAILED: $*" >&2
	exit 1
}

rm -rf "$root"
mkdir -p "$root"
make --no-print-directory install DESTDIR="$root" PREFIX=/usr
(cd "$root" && find . -type f | sort) >"$work/files"
! grep -rn '@bindir@' "$root/usr/lib" || fail "the units do not know where the programs are"

# systemd's own units, which ours refer to.
cp -a /lib/systemd/system/. "$work/system.tmp"
cp -an "$work/system.tmp/." "$root/usr/lib/systemd/system/"
rm -rf "$work/system.tmp"
ln -s usr/lib "$root/lib"

# verify UNIT: no word from systemd, and status 0.
verify() {
	local said
	said=$(systemd-analyze verify --root="$root" --man=no "/usr/lib/systemd/system/$1" 2>&1) || fail "$1: $said"
	[[ ! $said ]] || fail "$1: $said"
	echo "verify: $1: ok"
}
for unit in rmemd.service rmem-server.service rmem-server.socket run-rmem-regions.mount rmem-region@x.service; do
	verify "$unit"
done

# exposed UNIT TENTHS: the most that it may be exposed.
: >"$work/security.txt"
exposed() {
	systemd-analyze security --offline=true --no-pager --root="$root" --threshold="$2" \
		"/usr/lib/systemd/system/$1" >>"$work/security.txt" || fail "$1: exposed: see $work/security.txt"
	tail -n 1 "$work/security.txt"
}
exposed rmemd.service 25
exposed rmem-server.service 15
# What it mounts is for everybody, which rules out most of a sandbox.
exposed rmem-region@.service 45

SYSTEMD_LOG_LEVEL=warning systemd-sysusers --root="$root" --dry-run rmem.conf rmem-server.conf >/dev/null ||
	fail "sysusers.d"
systemd-tmpfiles --root="$root" --create rmem.conf || fail "tmpfiles.d"
[[ $(stat -c %a "$root/run/rmem") == 755 ]] || fail "tmpfiles.d made no /run/rmem"

while read -r f; do
	[[ -f $root/$f ]] || fail "$f is gone before make uninstall"
done <"$work/files"
make --no-print-directory uninstall DESTDIR="$root" PREFIX=/usr >/dev/null
while read -r f; do
	[[ ! -e $root/$f ]] || fail "make uninstall leaves $f"
done <"$work/files"
