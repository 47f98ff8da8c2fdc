#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Installs the Debian packages that building and testing need, and only those
# that are missing: where all are present, no network and no root is needed.
# Changes no apt source and installs no kernel (tests/vm/kernels.sh unpacks
# kernels under build/). `deps.sh bench' also installs the peers that `make bench'
# measures and what draws its plots.
set -euo pipefail

# Needed: without one of these, building or testing fails.
required=(
	# C, C++ and module toolchain
	build-essential cmake ninja-build pkg-config bc bison flex kmod libelf-dev pahole rsync
	# libraries of the daemons, the tools and their tests
	libcli11-dev nlohmann-json3-dev libspdlog-dev libfmt-dev libtomlplusplus-dev liblz4-dev libzstd-dev
	libgnutls28-dev libnl-3-dev libnl-genl-3-dev libsystemd-dev libfuse3-dev
	libgtest-dev libgmock-dev libbenchmark-dev
	# the instrumented kernel (tests/vm/debug-kernel.sh)
	ccache libssl-dev lz4
	# the VM and what the tests run in it
	qemu-system-x86 busybox-static cpio e2fsprogs fdisk iproute2 iputils-ping
	dmsetup gnutls-bin mount passwd procps psmisc util-linux xz-utils zstd
	fio python3 python3-jsonschema python3-yaml seabios socat sqlite3 strace stress-ng
	# make fuzz
	clang libclang-rt-dev
	# packaging
	dkms
	# make lint, make format; completion is tried in each shell
	clang-format clang-tidy shellcheck sparse bash-completion fish zsh
)

[[ ${1:-} != bench ]] || required+=(nbdkit nbd-client gnuplot-nox)

# Names that not every supported release has: installed where they exist.
optional=(libxxhash-dev)

installed() {
	[[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

as_root() {
	if ((EUID == 0)); then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		echo "deps: need root to run: $*; install sudo or run 'make deps' as root" >&2
		exit 1
	fi
}

missing=()
for p in "${required[@]}" "${optional[@]}"; do
	installed "$p" || missing+=("$p")
done
((${#missing[@]})) || exit 0

if ! command -v apt-get >/dev/null; then
	echo "deps: no apt-get here; install by hand: ${missing[*]}" >&2
	exit 1
fi

# A third-party source that does not answer must not stop us: what we need is
# in Debian's own archive, and the install below fails if that is stale.
echo "deps: missing: ${missing[*]}"
as_root apt-get update -q || echo "deps: apt-get update failed in part; going on" >&2

want=()
for p in "${missing[@]}"; do
	if [[ -n $(apt-cache --quiet=0 policy "$p" 2>/dev/null | sed -n 's/^  Candidate: \((none)\)\?//p') ]]; then
		want+=("$p")
	elif [[ " ${optional[*]} " != *" $p "* ]]; then
		echo "deps: package $p does not exist on this release" >&2
		exit 1
	fi
done
((${#want[@]})) || exit 0
as_root env DEBIAN_FRONTEND=noninteractive \
	apt-get install -y -q --no-install-recommends "${want[@]}"
