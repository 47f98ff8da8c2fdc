#!/bin/bash
# SPDX-License-Identifier: MIT
#
# debug-kernel.sh VARIANT: builds an instrumented kernel from Debian's source,
# unless it is there, and prints its release (6.12.95-kasan), by which, or as
# 6.12-VARIANT, run.sh and kernels.sh know it.
#
#   kasan    memory errors, leaks, lock order, sleeping where one must not,
#            undefined arithmetic, failures on demand
#   kcsan    data races, lock order
#
# A cold build costs about 25 minutes of CPU time; ccache, where it is
# installed, makes the second one a matter of a minute. What is kept is small:
# the kernel and what modules are built against. It is used for as long as the
# configuration, the flags and the compiler are the same; remove build/kernels
# to get a newer source.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
kernels=$top/build/kernels
variant=${1:-}
series=6.12

# The compiler's checks go into modules, not into the kernel itself: its memory is
# tracked all the same, and it runs three times faster. What is lost is the
# kernel's own code that touches bad memory for a module.
case $variant in
kasan) flags=(KASAN_SANITIZE=n UBSAN_SANITIZE=n) ;;
kcsan) flags=(KCSAN_SANITIZE=n UBSAN_SANITIZE=n) ;;
*)
	sed -n '3,/^set /s/^# \{0,1\}//p' "$0" >&2
	exit 2
	;;
esac
fragments=("$here/debug.config" "$here/$variant.config")

die() {
	echo "debug-kernel: $*" >&2
	exit 1
}

# key VERSION: names all that makes the kernel what it is.
key() {
	{
		cat "${fragments[@]}"
		printf '%s\n' "${flags[@]}" "$1" "$(gcc --version | head -n 1)"
	} | sha256sum | cut -d' ' -f1
}

# The compiler's name stays gcc, so that a build with ccache is the same build.
# Dates and names, which would change every object that holds them, are fixed.
kmake() {
	PATH=/usr/lib/ccache:$PATH CCACHE_DEPEND=1 KBUILD_BUILD_TIMESTAMP=1970-01-01 \
		KBUILD_BUILD_VERSION=1 KBUILD_BUILD_USER=rmem KBUILD_BUILD_HOST=rmem \
		make -s -C "$tmp/linux" -j"$(nproc)" "${flags[@]}" "$@"
}

configure() {
	local line name missing=()
	cat "${fragments[@]}" >"$tmp/fragment"
	echo "CONFIG_LOCALVERSION=\"-$variant\"" >>"$tmp/fragment"
	kmake KCONFIG_ALLCONFIG="$tmp/fragment" allnoconfig >&2
	# Kconfig drops in silence what lacks something.
	while read -r line; do
		case $line in
		CONFIG_*) grep -qxF "$line" "$tmp/linux/.config" || missing+=("$line") ;;
		"# CONFIG_"*" is not set")
			name=${line#\# }
			! grep -q "^${name% is not set}=" "$tmp/linux/.config" || missing+=("$line")
			;;
		esac
	done <"$tmp/fragment"
	((!${#missing[@]})) || die "not to be had in this kernel: ${missing[*]}"
}

build() {
	local package=$1 version=$2 rel root=$tmp/root
	# A build that was interrupted goes on.
	if [[ ! -e $tmp/key || $(<"$tmp/key") != "$(key "$version")" ]]; then
		rm -rf "$tmp"
		mkdir -p "$tmp/linux"
		dpkg-deb --fsys-tarfile "$package" |
			tar -xO "./usr/src/linux-source-$series.tar.xz" | xz -dc -T0 |
			tar -x -C "$tmp/linux" --strip-components=1
		# It cannot be asked for; Debian's kernels have it for a graphics driver.
		sed -i '/^config MAPPING_DIRTY_HELPERS$/{n;s/bool$/bool "helpers to track dirty pages"/}' \
			"$tmp/linux/mm/Kconfig"
		configure
		key "$version" >"$tmp/key"
	fi
	rm -rf "$root"
	mkdir -p "$root/boot"
	rel=$(kmake kernelrelease)
	echo "debug-kernel: building $rel: 25 minutes of CPU time, unless ccache has it" >&2
	kmake bzImage modules >&2 || die "$rel does not build"
	kmake INSTALL_MOD_PATH="$root" DEPMOD=true modules_install >&2
	cp "$tmp/linux/arch/x86/boot/bzImage" "$root/boot/vmlinuz-$rel"
	rm -f "$root/lib/modules/$rel/build"
	# shellcheck disable=SC2016  # for make's shell
	kmake run-command \
		KBUILD_RUN_COMMAND='+$(srctree)/scripts/package/install-extmod-build '"$root/lib/modules/$rel/build" >&2
	cp "$tmp/linux/.config" "$root/boot/config-$rel"
	PATH=$PATH:/sbin:/usr/sbin depmod -b "$root" "$rel"
	echo "$version" >"$root/version"
	key "$version" >"$root/key"
	rm -rf "${kernels:?}/$rel"
	mv "$root" "$kernels/$rel"
	rm -rf "$tmp"
	echo "$rel"
}

current() {
	local rel
	rel=$("$here/kernels.sh" resolve "$series-$variant" 2>/dev/null) || return 1
	[[ -e $kernels/$rel/key && $(<"$kernels/$rel/key") == "$(key "$(<"$kernels/$rel/version")")" ]] || return 1
	echo "$rel"
}

# One at a time, and not the lock of kernels.sh: that is needed meanwhile.
mkdir -p "$kernels"
tmp=$kernels/.tmp.$series-$variant
exec 8>"$kernels/.lock-$variant"
flock 8
current || {
	package=$("$here/kernels.sh" source-package "$series")
	build "$package" "$(dpkg-deb -f "$package" Version)"
}
