#!/bin/bash
# SPDX-License-Identifier: MIT
#
# initramfs.sh RELEASE: builds the initramfs of a kernel under build/ unless it
# is there and newer than its parts, and prints its path.
#
# Beside what it takes to reach the root file system it holds /warm: what tests start
# again and again, for the guest to have in memory. To open a file of the 9p share costs an
# emulated machine a millisecond or more, and a program opens dozens: `rmemctl --version`
# takes 180 ms from there and 85 ms from memory.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
rel=$1
kernel=$top/build/kernels/$rel
out=$top/build/vm/initramfs-$rel.cpio
PATH=/usr/sbin:/usr/bin:/sbin:/bin

# What it takes to reach the root file system and the output channels; all
# other modules come from there, by modprobe.
modules=(virtio_pci virtio_console 9pnet_virtio 9p overlay)

programs=(awk basename bash cat certtool chmod chown cmp cp cut date dd df dirname dmesg du env
	false find flock getent grep head id insmod ip kill ln losetup ls lsmod md5sum mkdir mkfifo
	mktemp modprobe mount mountpoint mv nft nsenter od pgrep ping pkill ps python3 readlink
	realpath rm rmdir rmmod sed seq setpriv setsid sh sha256sum sleep sort sqlite3 ss stat stdbuf
	sync sysctl tail tc tee timeout touch tr true truncate umount uname unshare wc)
modules_of_python=json,mmap,multiprocessing,os,pathlib,random,re,resource,socket,struct,subprocess,sys,time

# The files they consist of.
warm() {
	local paths
	mapfile -t paths < <(type -P "${programs[@]}")
	printf '%s\n' "${paths[@]}" /etc/ld.so.cache
	# Of rmem's own programs, which every run brings along as they are then, the libraries.
	{ ldd "${paths[@]}" "$top"/build/rmem* 2>/dev/null || true; } | # not of scripts
		awk '$2 == "=>" { print $3 } $1 ~ /^\// && NF == 2 { print $1 }'
	# What one of Python loads, it opens itself.
	/usr/bin/python3 -c "if True:
		import $modules_of_python
		for module in list(sys.modules.values()):
			for path in (getattr(module, name, None) for name in ('__file__', '__cached__')):
				if path and os.path.exists(path): print(path)"
}

if [[ $out -nt $here/initramfs.sh && $out -nt $here/initramfs-init && $out -nt $kernel && -e $out.warm ]] &&
	# Packages have the times they were made at: when they were unpacked, their status tells.
	! xargs -a "$out.warm" -d '\n' sh -c 'find "$@" -cnewer "$0" -print -quit 2>&1' "$out" | grep -q .; then
	echo "$out"
	exit 0
fi

mkdir -p "$top/build/vm"
tmp=$(mktemp -d "$top/build/vm/.initramfs.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp"/root/{bin,dev,proc,sys,modules,lower,rw,new,warm}
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

# By its real directory, since /lib may be a link, but by its own name.
warm | sort -u >"$tmp/warm"
while read -r file; do
	dir=$(readlink -f "$(dirname "$file")")
	mkdir -p "$tmp/root/warm$dir"
	cp -L --preserve=mode,timestamps "$file" "$tmp/root/warm$dir/"
done <"$tmp/warm"

# Not compressed: to unpack that costs an emulated machine more than to read it.
(cd "$tmp/root" && find . | cpio -o -H newc --quiet -R 0:0) >"$tmp/out"
mv "$tmp/warm" "$out.warm"
mv "$tmp/out" "$out"
echo "$out"
