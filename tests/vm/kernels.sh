#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Fetches Debian kernels and their headers and unpacks them under
# build/kernels/RELEASE. Nothing is installed, no apt source of the machine is
# changed: apt runs with a configuration, lists and a cache of its own.
#
#   kernels.sh fetch           fetch the wanted kernels that are not there yet
#   kernels.sh list            wanted releases that are there, one a line
#   kernels.sh missing         wanted series that this Debian does not have
#   kernels.sh resolve WANT    the release for a series (6.1), a series and a
#                              variant of debug-kernel.sh (6.12-kasan) or a release
#   kernels.sh source          fetch the parts of the kernel source `make lint`
#                              needs into build/linux-source
#   kernels.sh source-package SERIES
#                              fetch the whole source of a series, if possible
#                              that of the kernel that is there, and print the
#                              path of the package
#
# RMEM_KERNELS="6.1 6.12" says which series are wanted; 6.12-kasan and 6.12-kcsan
# are built by debug-kernel.sh. What is there is used as it is, without the
# network; remove build/kernels to get newer ones.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
kernels=$top/build/kernels
source_dir=$top/build/linux-source
# shellcheck source=/dev/null
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-unknown}")
arch=amd64

case $codename in
bookworm) default="6.1 6.12" ;;
trixie) default="6.12" ;;
*) default="6.1 6.12" ;;
esac
wanted=${RMEM_KERNELS:-$default}
instrumented='-(kasan|kcsan)$'

die() {
	echo "kernels: $*" >&2
	exit 1
}

# The newest unpacked release of a series; a full release names itself.
resolve() {
	local want=$1 kind=$arch rel
	if [[ -d $kernels/$want && $want == *-* ]]; then
		echo "$want"
		return
	fi
	[[ $want != *-* ]] || kind=${want##*-} want=${want%-*}
	rel=$(cd "$kernels" 2>/dev/null && printf '%s\n' "$want".*-"$kind" | sort -V | tail -n 1)
	[[ -n $rel && -d $kernels/$rel ]] || return 1
	echo "$rel"
}

# --- the private apt --------------------------------------------------------

apt_dir=$kernels/.apt

# shellcheck source=scripts/private-apt.sh
. "$top/scripts/private-apt.sh"

need_apt() {
	apt_update "linux-image-$arch" ||
		die "the Debian mirror did not answer; build/kernels holds no copy to use instead"
}

# Field $3 of package $1 in version $2.
field() {
	apt-cache "${apt_opts[@]}" show "$1=$2" | sed -n "s/^$3: //p" | head -n 1
}

# First dependency of $1=$2 whose name matches the regular expression $3.
depends() {
	field "$1" "$2" Depends | tr ',|' '\n\n' | sed 's/(.*//; s/ //g' | grep -E -m 1 "$3"
}

# Versions of package $1, the newest first.
versions() {
	apt-cache "${apt_opts[@]}" madison "$1" | awk -F' *[|] *' '{ print $2 }' | sort -Vru
}

# --- kernels ----------------------------------------------------------------

# Headers find their parts by absolute paths, /usr/src and /usr/lib: make them
# find those beside themselves, so that the tree works wherever it is.
relocate_headers() {
	local root=$1 rel=$2 file
	for file in "$root"/usr/src/linux-headers-*/Makefile; do
		# shellcheck disable=SC2016  # for make, not for the shell
		sed -i 's|^include /usr/src/|include $(dir $(lastword $(MAKEFILE_LIST)))../|' "$file"
	done
	ln -sfnr "$root/usr/src/linux-headers-$rel" "$root/lib/modules/$rel/build"
	rm -f "$root/lib/modules/$rel/source"
}

# Unpack release $2 (image version $3) of series $1 in a directory aside and
# rename it when all is there: an interrupted run leaves nothing half done.
fetch_release() {
	local series=$1 rel=$2 version=$3 tmp=$kernels/.tmp.$2 common kbuild tools deb
	rm -rf "$tmp"
	mkdir -p "$tmp/debs" "$tmp/root"

	common=$(depends "linux-headers-$rel" "$version" '^linux-headers-.*-common$') ||
		die "$rel: no common headers named by linux-headers-$rel"
	kbuild=$(depends "linux-headers-$rel" "$version" '^linux-kbuild-') ||
		die "$rel: no kbuild package named by linux-headers-$rel"

	# Signed images come to the mirrors later than what is built with them: then the newest.
	tools=$(versions "$kbuild")
	! grep -qxF "$version" <<<"$tools" || tools=$version

	echo "kernels: fetching $rel ($version)"
	(cd "$tmp/debs" && apt-get "${apt_opts[@]}" download -q \
		"linux-image-$rel=$version" "linux-headers-$rel=$version" \
		"$common=$version" "$kbuild=${tools%%$'\n'*}") ||
		die "$rel: download failed"
	for deb in "$tmp"/debs/*.deb; do
		dpkg-deb -x "$deb" "$tmp/root"
	done
	rm -r "$tmp/debs"

	# Newer packages put modules in usr/lib; give both the same face.
	if [[ ! -d $tmp/root/lib/modules/$rel ]]; then
		mkdir -p "$tmp/root/lib"
		ln -sfn ../usr/lib/modules "$tmp/root/lib/modules"
	fi
	relocate_headers "$tmp/root" "$rel"
	PATH=$PATH:/sbin:/usr/sbin depmod -b "$tmp/root" "$rel"

	rm -rf "${kernels:?}/$rel"
	mv "$tmp/root" "$kernels/$rel"
	rm -r "$tmp"
	rm -f "$kernels/.missing-$series"
}

fetch_series() {
	local series=$1 version rel
	resolve "$series" >/dev/null && return 0
	# Known not to exist here: do not ask the network each time.
	[[ ! -e $kernels/.missing-$series ]] || return 0

	need_apt
	version=$(versions "linux-image-$arch" | grep "^${series//./\\.}\\.") || version=
	version=${version%%$'\n'*}
	if [[ -z $version ]]; then
		echo "kernels: $codename has no $series kernel" >&2
		# Remembered, unless a source gave no answer: it may next time.
		[[ $apt_partial ]] || : >"$kernels/.missing-$series"
		return 0
	fi
	rel=$(depends "linux-image-$arch" "$version" '^linux-image-')
	fetch_release "$series" "${rel#linux-image-}" "$version"
}

fetch() {
	local series
	mkdir -p "$kernels"
	# Before the lock, which they need themselves.
	for series in $wanted; do
		[[ ! $series =~ $instrumented ]] || "$here/debug-kernel.sh" "${series##*-}"
	done
	exec 9>"$kernels/.lock"
	flock 9
	for series in $wanted; do
		[[ $series =~ $instrumented ]] || fetch_series "$series"
	done
	rm -rf "$apt_dir"
}

# --- source -----------------------------------------------------------------

fetch_source() {
	local name version tmp=$kernels/.tmp.source
	[[ ! -d $source_dir ]] || return 0
	mkdir -p "$kernels"
	exec 9>"$kernels/.lock"
	flock 9
	need_apt
	name=$(apt-cache "${apt_opts[@]}" pkgnames linux-source- | grep -E '^linux-source-[0-9.]+$' | sort -V | tail -n 1)
	[[ -n $name ]] || die "$codename has no linux-source package"
	version=${name#linux-source-}
	rm -rf "$tmp"
	mkdir -p "$tmp/debs" "$tmp/root"
	echo "kernels: fetching $name"
	(cd "$tmp/debs" && apt-get "${apt_opts[@]}" download -q "$name") || die "$name: download failed"
	dpkg-deb --fsys-tarfile "$tmp"/debs/*.deb |
		tar -xO "./usr/src/linux-source-$version.tar.xz" | xz -dc -T0 |
		tar -x -C "$tmp/root" --strip-components=1 \
			"linux-source-$version/LICENSES" \
			"linux-source-$version/scripts/checkpatch.pl" \
			"linux-source-$version/scripts/spelling.txt" \
			"linux-source-$version/scripts/const_structs.checkpatch" \
			"linux-source-$version/Documentation/netlink" \
			"linux-source-$version/tools/net/ynl"
	mv "$tmp/root" "$source_dir"
	rm -rf "$tmp" "$apt_dir"
}

# Kept for the next variant, and for a build whose configuration changed.
fetch_source_package() {
	local series=$1 name=linux-source-$1 rel versions version='' dir=$kernels/.source file
	mkdir -p "$dir"
	exec 9>"$kernels/.lock"
	flock 9
	rel=$(resolve "$series") || rel=
	for file in "$dir/${name}_${rel%%[+-]*}"-*.deb "$dir/${name}"_*.deb; do
		[[ ! -e $file ]] || { echo "$file"; return; }
	done
	need_apt
	versions=$(versions "$name")
	[[ ! $rel ]] || version=$(grep "^${rel%%[+-]*}-" <<<"$versions") || version=
	version=${version:-$versions}
	version=${version%%$'\n'*}
	[[ $version ]] || die "$codename has no package $name"
	echo "kernels: fetching $name ($version)" >&2
	rm -rf "$kernels/.tmp.source"
	mkdir "$kernels/.tmp.source"
	(cd "$kernels/.tmp.source" && apt-get "${apt_opts[@]}" download -q "$name=$version" >&2) ||
		die "$name: download failed"
	file=$dir/${name}_$version.deb
	mv "$kernels"/.tmp.source/*.deb "$file"
	rm -rf "$kernels/.tmp.source" "$apt_dir"
	echo "$file"
}

# --- commands ---------------------------------------------------------------

case ${1:-} in
fetch)
	fetch
	;;
list)
	for series in $wanted; do
		resolve "$series" || true
	done
	;;
missing)
	for series in $wanted; do
		resolve "$series" >/dev/null || echo "$series"
	done
	;;
resolve)
	resolve "${2:?which kernel?}" ||
		die "no kernel $2 under build/kernels; 'make kernels' fetches: $wanted"
	;;
source)
	fetch_source
	;;
source-package)
	fetch_source_package "${2:?of which series?}"
	;;
*)
	sed -n '3,/^set /s/^# \{0,1\}//p' "$0" >&2
	exit 2
	;;
esac
