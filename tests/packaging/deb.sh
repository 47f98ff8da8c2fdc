#!/bin/bash
# SPDX-License-Identifier: MIT
#
# `make check-deb`: the packages of build/deb in a clean Debian 12: they install,
# the programs run, DKMS builds the module for both kernels, one of which comes
# after the package, and purging leaves nothing.
#
# Takes the network and some minutes, and mmdebstrap, so it is not part of `make
# test`. The Debian is unpacked in a temporary directory and thrown away.
set -euo pipefail

if [[ ${1:-} != --inside ]]; then
	cd "$(dirname "$0")/../.."
	command -v mmdebstrap >/dev/null || {
		echo "deb: no mmdebstrap here (apt install mmdebstrap)" >&2
		exit 1
	}
	ls build/deb/rmem{-dkms,-tools,d,-server}_*.deb
	mirror=http://deb.debian.org
	export TMPDIR=$PWD/build
	exec mmdebstrap --quiet --variant=apt --format=null \
		--customize-hook="mkdir -p \"\$1/root/debs\"" \
		--customize-hook="cp build/deb/rmem*_*.deb tests/packaging/deb.sh \"\$1/root/debs/\"" \
		--customize-hook="chroot \"\$1\" bash /root/debs/deb.sh --inside" \
		bookworm - \
		"deb $mirror/debian bookworm main" \
		"deb $mirror/debian bookworm-updates main" \
		"deb $mirror/debian bookworm-backports main" \
		"deb $mirror/debian-security bookworm-security main"
fi

# --- in the chroot ----------------------------------------------------------

fail() {
	echo "FAILED: $*" >&2
	exit 1
}
get() { apt-get -qq -y -o Dpkg::Use-Pty=0 --no-install-recommends "$@"; }
export DEBIAN_FRONTEND=noninteractive
cd /root/debs
rm -f ./*-dbgsym_*.deb

headers_of() { # SERIES: the package of the newest kernel
	local version
	version=$(apt-cache madison linux-headers-amd64 |
		awk -F' *[|] *' -v s="$1." 'index($2, s) == 1 { print $2 }' | sort -V | tail -n 1)
	apt-cache show "linux-headers-amd64=$version" | sed -n 's/^Depends: \(linux-headers-[^ ,]*\).*/\1/p' | head -n 1
}
first=$(headers_of 6.1) second=$(headers_of 6.12)
[[ $first && $second ]] || fail "no headers of 6.1 ($first) or 6.12 ($second)"

# Left out is what remains of packages in general: logs, caches, dpkg's own books,
# and of DKMS its signing key.
files() {
	find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /root \
		-o -path /var/cache -o -path /var/log -o -path /var/lib/apt -o -path /var/lib/dpkg \) -prune \
		-o -print | grep -vE '^(/etc/(passwd|group|g?shadow)-|/(usr/)?lib/modules/[^/]*/modules\..*|/var/lib/dkms/mok\..*)$' | sort
}
purge() {
	mkdir -p /var/lib/rmem-server
	touch /var/lib/rmem-server/state /etc/rmem/rmem-server.{conf,toml} /etc/rmem/rmemd.toml \
		/etc/rmem/regions/data.conf
	get purge rmem-dkms rmem-tools rmemd rmem-server
	[[ ! $(dpkg --audit) ]] || fail "dpkg: $(dpkg --audit)"
}
echo "== dependencies, and the headers of one kernel"
depends=$(for d in ./*.deb; do
	dpkg-deb -f "$d" Depends
	dpkg-deb -f "$d" Pre-Depends
done | tr , '\n' | grep -v rmem | grep . | paste -sd,)
get satisfy "$depends" >/dev/null
get install "$first" >/dev/null

echo "== install"
get install ./*.deb
for program in rmemd rmem-server rmemctl; do
	$program --version
	[[ -e /usr/share/man/man8/$program.8.gz ]] || fail "no manual page of $program"
done
getent group rmem >/dev/null || fail "no group rmem"
getent passwd rmem-server >/dev/null || fail "no user rmem-server"
# The module is not loaded here, and the programs say so.
status=0
rmemctl status 2>/root/said || status=$?
((status == 3)) && grep -q 'modprobe rmem' /root/said || fail "rmemctl status: $status: $(cat /root/said)"
dkms status

echo "== a kernel that comes later"
get install "$second" >/root/second.log 2>&1 || { cat /root/second.log; fail "$second"; }
dkms status
for headers in "$first" "$second"; do
	kernel=${headers#linux-headers-}
	[[ $(dkms status -m rmem -k "$kernel") == *": installed" ]] || fail "$kernel: $(dkms status -k "$kernel")"
	[[ -n $(find "/lib/modules/$kernel/updates/dkms" -name 'rmem.ko*') ]] || fail "$kernel: no module"
done

echo "== again, as an upgrade does"
get install --reinstall ./*.deb >/root/again.log 2>&1 || { cat /root/again.log; fail "installing again"; }
[[ $(dkms status -m rmem -k "${first#linux-headers-}") == *": installed" ]] || fail "the module is gone"

echo "== purge"
purge
left=$(files | grep -E '[/-]_?rmem' || true)
[[ ! $left ]] || fail "left behind: $left"

echo "== once more, compared file by file"
files >/root/before
get install ./*.deb >/root/again.log 2>&1 || { cat /root/again.log; fail "installing again"; }
purge
left=$(comm -13 /root/before <(files))
[[ ! $left ]] || fail "left behind: $left"
echo "deb: ok for $first and $second"
