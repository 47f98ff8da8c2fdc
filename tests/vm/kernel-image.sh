#!/bin/bash
# SPDX-License-Identifier: MIT
#
# kernel-image.sh RELEASE: prints the path of what QEMU boots of a kernel: of one that it can
# enter without its own decompressor (CONFIG_PVH), the image without compression, made under
# build/ unless that has been done. To decompress takes an emulated machine seconds.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
rel=$1
compressed=$top/build/kernels/$rel/boot/vmlinuz-$rel
out=$top/build/vm/vmlinux-$rel

# number OFFSET BYTES: of the header, Documentation/arch/x86/boot.rst.
number() {
	od -An -tu"$2" -j $(($1)) -N "$2" "$compressed" | tr -d ' '
}

# A package's files have the times they were made at: when they were unpacked, their status tells.
if [[ -e $out && ! $(find "$compressed" "$here/kernel-image.sh" -cnewer "$out") ]]; then
	echo "$out"
	exit 0
fi
start=$(((1 + $(number 0x1f1 1)) * 512 + $(number 0x248 4)))
# Behind it is its length before it was compressed.
length=$(($(number 0x24c 4) - 4))
case $(od -An -tx4 -j $start -N 4 "$compressed") in
*587a37fd) unpack=(xz -dc) ;;
*fd2fb528) unpack=(zstd -q -dc) ;;
*) unpack=() ;;
esac
if ((!${#unpack[@]})) || ! grep -qx CONFIG_PVH=y "$top/build/kernels/$rel/boot/config-$rel"; then
	echo "$compressed"
	exit 0
fi
mkdir -p "$top/build/vm"
tmp=$(mktemp "$top/build/vm/.vmlinux.XXXXXX")
trap 'rm -f "$tmp"' EXIT
dd if="$compressed" bs=1M iflag=skip_bytes,count_bytes skip=$start count=$length status=none |
	"${unpack[@]}" >"$tmp"
mv "$tmp" "$out"
echo "$out"
