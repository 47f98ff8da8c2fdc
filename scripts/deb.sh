#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Builds the Debian packages of debian/control into build/deb, from a copy of
# the sources, and has lintian judge them if it is there.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
out=$top/build/deb
version=$(sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' "$top/dkms.conf")

command -v dh >/dev/null || {
	echo "deb: install what builds packages: apt install debhelper dh-dkms lintian" >&2
	exit 1
}
rm -rf "$out"
mkdir -p "$out/rmem-$version"
tar -C "$top" --exclude=./build --exclude=./.git -cf - . | tar -C "$out/rmem-$version" -xf -
cd "$out/rmem-$version"
dpkg-buildpackage --build=binary --no-sign
cd "$out"
rm -rf "rmem-$version"
if command -v lintian >/dev/null; then
	lintian --fail-on error,warning --info ./*.changes
fi
ls -- *.deb
