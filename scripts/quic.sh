#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Fetches the development files of QUIC (ngtcp2 1.11 or later, with its helper for GnuTLS) from
# Debian and unpacks them under build/quic, where daemon/transport/CMakeLists.txt finds them.
# Nothing is installed and no apt source of the machine is changed. Does nothing where the system
# has them or they are there already; where this Debian has none, it says so, and rmem is built
# without QUIC.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
dir=$top/build/quic
packages=(libngtcp2-dev libngtcp2-crypto-gnutls-dev)
least=1.11
# shellcheck source=/dev/null
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-unknown}")
arch=$(dpkg --print-architecture)
apt_dir=$dir/.apt

new_enough() { # VERSION
	[[ $1 ]] && dpkg --compare-versions "$1" ge "$least"
}

installed=$(dpkg-query -W -f '${Version}' libngtcp2-crypto-gnutls-dev 2>/dev/null || true)
! new_enough "$installed" || exit 0
[[ ! -d $dir/root && ! -e $dir/.missing ]] || exit 0
mkdir -p "$dir"
exec 9>"$dir/.lock"
flock 9
[[ ! -d $dir/root ]] || exit 0

# shellcheck source=scripts/private-apt.sh
. "$top/scripts/private-apt.sh"
apt_update "${packages[0]}" || { echo "quic: no mirror has ${packages[0]}" >&2; exit 1; }
fetch=()
for package in "${packages[@]}"; do
	version=$(apt-cache "${apt_opts[@]}" madison "$package" | awk -F' *[|] *' '{ print $2 }' | sort -V | tail -n 1)
	if ! new_enough "$version"; then
		echo "quic: $codename has no $package of $least or later: built without QUIC" >&2
		[[ $apt_partial ]] || : >"$dir/.missing"
		exit 0
	fi
	fetch+=("$package=$version")
done
echo "quic: fetching ${fetch[*]}"
rm -rf "$dir/.tmp"
mkdir -p "$dir/.tmp/debs" "$dir/.tmp/root"
(cd "$dir/.tmp/debs" && apt-get "${apt_opts[@]}" download -q "${fetch[@]}")
for deb in "$dir"/.tmp/debs/*.deb; do
	dpkg-deb -x "$deb" "$dir/.tmp/root"
done
mv "$dir/.tmp/root" "$dir/root"
rm -rf "$dir/.tmp" "$apt_dir"
