#!/bin/bash
# SPDX-License-Identifier: MIT
#
# DKMS, for real: `make dkms-install` builds and installs the module for every
# kernel of build/kernels and for no other, and DKMS's hooks, which apt runs
# for each kernel that comes, succeed on a kernel that is not supported.
#
# All of it happens in a mount namespace in which /usr/src, /lib/modules and
# /var/lib/dkms are directories below build/dkms: this machine's stay as they
# are. Status 4: cannot be tried here.
set -euo pipefail

top=$(cd "$(dirname "$0")/../.." && pwd)
cd "$top"
PATH=$PATH:/usr/sbin:/sbin
work=$top/build/dkms

if [[ ${1:-} != --inside ]]; then
	command -v dkms >/dev/null || { echo "skip: no dkms here"; exit 4; }
	own=(unshare --mount)
	((EUID == 0)) || own=(unshare --map-root-user --mount)
	"${own[@]}" true 2>/dev/null || { echo "skip: no mount namespace may be made here"; exit 4; }
	rm -rf "$work"
	mkdir -p "$work"/{src,modules,dkms,lib,lib-work}
	exec "${own[@]}" "$0" --inside
fi

fail() {
	echo "FAILED: $*" >&2
	exit 1
}

# A machine without kernels of its own, such as a container, has no /lib/modules.
lib=$(realpath /lib)
[[ -d $lib/modules ]] || mount -t overlay \
	-o "lowerdir=$lib,upperdir=$work/lib,workdir=$work/lib-work" overlay "$lib"
mkdir -p "$lib/modules"
mount --bind "$work/src" /usr/src
mount --bind "$work/modules" /lib/modules
mount --bind "$work/dkms" /var/lib/dkms

version=$(sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' dkms.conf)
mapfile -t kernels < <(tests/vm/kernels.sh list)
((${#kernels[@]})) || fail "no kernel under build/kernels"

# As installed: with headers, and what depmod reads.
for k in "${kernels[@]}"; do
	mkdir "/lib/modules/$k"
	ln -s "$top/build/kernels/$k/lib/modules/$k/build" "/lib/modules/$k/build"
	cp "$top/build/kernels/$k/lib/modules/$k"/modules.{builtin,builtin.modinfo,order} "/lib/modules/$k/"
done
# Two that rmem does not support, one of them later than all that it does. The
# headers are real ones, so that nothing but dkms.conf stands in the way.
unsupported=(5.10.0-99-amd64 9.9.0-1-amd64)
for k in "${unsupported[@]}"; do
	cp -a "/lib/modules/${kernels[0]}" "/lib/modules/$k"
done

status_of() { dkms status -m rmem -v "$version" -k "$1"; }

echo "== make dkms-install"
make --no-print-directory dkms-install
for k in "${kernels[@]}"; do
	[[ $(status_of "$k") == "rmem/$version, $k, x86_64: installed" ]] || fail "$k: dkms status: $(status_of "$k")"
	[[ $(modinfo -k "$k" -F version rmem) == "$version" ]] || fail "$k: modinfo does not find rmem $version"
	[[ $(modinfo -k "$k" -F vermagic rmem) == "$k "* ]] || fail "$k: built for another kernel"
done
for k in "${unsupported[@]}"; do
	[[ $(status_of "$k") == "rmem/$version: added" ]] || fail "$k: dkms status: $(status_of "$k")"
done
[[ $(find /usr/src/rmem-* -mindepth 1 -maxdepth 1 -printf '%f\n' | sort | xargs) == "dkms.conf kmod uapi" ]] ||
	fail "the source tree has other things in it"

echo "== a kernel that is not supported"
for k in "${unsupported[@]}"; do
	status=0
	dkms build -m rmem -v "$version" -k "$k" || status=$?
	((status == 77)) || fail "$k: status $status, not 77"
	# What apt runs when a kernel or its headers are installed and removed;
	# its status is apt's.
	/etc/kernel/header_postinst.d/dkms "$k" || fail "$k: header_postinst.d: status $?"
	/etc/kernel/postinst.d/dkms "$k" || fail "$k: postinst.d: status $?"
	/etc/kernel/prerm.d/dkms "$k" || fail "$k: prerm.d: status $?"
	[[ ! -e /lib/modules/$k/updates ]] || fail "$k: something was installed"
done

echo "== a supported kernel that comes later"
k=${kernels[0]}
dkms remove -m rmem -v "$version" -k "$k"
# With the last kernel DKMS forgets the module.
((${#kernels[@]} > 1)) || dkms add -m rmem -v "$version"
[[ ! -e /lib/modules/$k/updates/dkms ]] || fail "$k: the module was not removed"
/etc/kernel/header_postinst.d/dkms "$k"
[[ $(status_of "$k") == *": installed" ]] || fail "$k: AUTOINSTALL: dkms status: $(status_of "$k")"

echo "== make dkms-uninstall"
make --no-print-directory dkms-uninstall
[[ ! $(dkms status) ]] || fail "dkms status: $(dkms status)"
[[ ! $(ls /usr/src) ]] || fail "/usr/src: $(ls /usr/src)"
[[ ! $(find /lib/modules/ -name 'rmem.ko*') ]] || fail "/lib/modules still has rmem.ko"

echo "== DESTDIR"
make --no-print-directory dkms-install DESTDIR="$work/dest"
[[ -f $work/dest/usr/src/rmem-$version/kmod/main.c ]] || fail "DESTDIR: no source there"
[[ ! $(dkms status) ]] || fail "DESTDIR: dkms was called"
make --no-print-directory dkms-uninstall DESTDIR="$work/dest"
[[ ! -e $work/dest/usr/src/rmem-$version ]] || fail "DESTDIR: the source is still there"
echo "dkms: ok for ${kernels[*]}"
