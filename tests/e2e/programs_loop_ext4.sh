#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A loop device over a region's file, with an ext4 on it that is made, mounted,
# filled, trimmed, unmounted and checked; at the end the server's file is a clean
# ext4 with the same files in it.
. "$(dirname "$0")/lib.sh"

modprobe -a loop ext4
truncate -s 48M served
hosts_up
start_server "disk=file://$work/served"
start_rmemd
attach disk --chunk 64KiB
file=/run/rmem/regions/disk

on_exit() {
	umount "$work/mnt" 2>/dev/null
	[[ ! ${loop:-} ]] || losetup -d "$loop" 2>/dev/null
}
loop=$(losetup --find --show $file)
assert_eq $((48 << 20)) "$(blockdev --getsize64 "$loop")" "size of $loop"
assert_exit 0 mkfs.ext4 -q -E nodiscard "$loop"
mkdir mnt
assert_exit 0 mount -o discard "$loop" mnt
for i in {1..40}; do
	head -c $((i * 9973)) /dev/urandom >mnt/file.$i
done
mkdir mnt/gone
head -c 4M /dev/urandom >mnt/gone/large
(cd mnt && sha256sum file.*) >sums
sync -f mnt/file.1
rm -r mnt/gone
assert_exit 0 fstrim mnt
# Synced while it is mounted: what the file system had written back is at the
# server, and a journal that it could be recovered from.
assert_exit 0 rmemctl sync disk
assert_exit 6 rmemctl detach disk
assert_exit 0 umount mnt
assert_exit 0 losetup -d "$loop"
wait_for region_is disk users 0
assert_exit 0 rmemctl drop disk
assert_exit 0 e2fsck -f -n $file

# Once more, read from the server through another device.
loop=$(losetup --find --show --read-only $file)
assert_exit 0 mount -o ro,noload "$loop" mnt
(cd mnt && sha256sum --quiet -c ../sums) || fail "other files on the region"
assert_exit 0 umount mnt
assert_exit 0 losetup -d "$loop"
wait_for region_is disk users 0
loop=''
assert_exit 0 rmemctl detach disk

assert_exit 0 e2fsck -f -n served
assert_exit 0 mount -o ro,loop,noload served mnt
(cd mnt && sha256sum --quiet -c ../sums) || fail "other files at the server"
[[ ! -e mnt/gone ]] || fail "a directory that was removed is at the server"
