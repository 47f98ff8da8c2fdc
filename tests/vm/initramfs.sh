#!/bin/bash
# SPDX-License-Identifier: MIT
#
# initramfs.sh RELEASE: builds the initramfs of a kernel under build/ unless it
# is there and newer than its parts, and prints its path.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
rel=$1
kernel=$top/build/kernels/$rel
out=$top/build/vm/initramfs-$rel.cpio.gz
PATH=$PATH:/sbin:/usr/sbin

# What it takes to reach the root file system and the output channels; all
# other modules come from there, by modprobe.
modules=(virtio_pci virtio_console 9pnet_virtio 9p overlay)

if [[ $out -nt $here/initramfs.sh && $out -nt $here/initramfs-init && $out -nt $kernel ]]; then
	echo "$out"
	exit 0
fi

mkdir -p "$top/build/vm"
tmp=$(mktemp -d "$top/build/vm/.initramfs.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp"/root/{bin,dev,proc,sys,modules,lower,rw,new}
cp "$(command -v busybox)" "$tmp/root/bin/busybox"
install -m 0755 "$here/initramfs-init" "$tmp/root/init"

# In loading order, each module once; built-in ones say "builtin".
for m in "${modules[@]}"; do
	modprobe -d "$kernel" -S "$rel" --show-depends "$m" ||
		{ echo "initramfs: $rel has no module $m" >&2; exit 1; }
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$tmp/list"
n=100
while read -r file; do
	name=$(basename "$file")
	case $file in
	*.xz) xz -dc "$file" ;;
	*.zst) zstd -q -dc "$file" ;;
	*.gz) gzip -dc "$file" ;;
	*) cat "$file" ;;
	esac >"$tmp/root/modules/$n-${name%%.*}.ko"
	n=$((n + 1))
done <"$tmp/list"

(cd "$tmp/root" && find . | cpio -o -H newc --quiet -R 0:0 | gzip -1) >"$tmp/out"
mv "$tmp/out" "$out"
echo "$out"
