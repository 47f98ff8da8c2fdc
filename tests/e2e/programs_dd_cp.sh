#!/bin/bash
# SPDX-License-Identifier: MIT
#
# dd, cp and their like: from the node and the file, onto the node, with every
# block size; what cannot be, for a region has a fixed size, is refused by name.
. "$(dirname "$0")/lib.sh"

size=$(((3 << 20) + 777))
head -c $size /dev/urandom >served
cp served original
hosts_up
start_server "f=file://$work/served"
start_rmemd
attach f --chunk 64KiB
node=/dev/rmem-f file=/run/rmem/regions/f

# Out of it.
for from in $node $file; do
	assert_exit 0 dd if="$from" of=copy bs=1M
	cmp copy original || fail "dd from $from: other bytes"
	assert_exit 0 dd if="$from" of=copy bs=777 skip=100 count=50
	cmp copy <(tail -c +77701 original | head -c 38850) || fail "dd skip from $from: other bytes"
	rm copy
	assert_exit 0 cp "$from" copy
	cmp copy original || fail "cp from $from: other bytes"
	rm copy
	assert_eq "$(sha256sum <original)" "$(sha256sum <"$from")" "sum of $from"
done
assert_exit 0 cp --sparse=always $file copy
cmp copy original || fail "cp --sparse: other bytes"
assert_exit 0 tar cf - -C /run/rmem/regions f
tar xf "$work/.out"
cmp f original || fail "tar: other bytes"

# Into it: dd as it is onto the node, which ignores O_TRUNC as a disk does ...
fresh() { head -c $size /dev/urandom >fresh; }
at_server() { # WHAT
	cmp fresh served || fail "$1: the server has other bytes"
	assert_clean f
}
fresh
assert_exit 0 dd if=fresh of=$node bs=64k conv=fsync
at_server "dd conv=fsync onto the node"
fresh
assert_exit 0 dd if=fresh of=$node bs=1000 oflag=dsync count=20
assert_exit 0 dd if=fresh of=$node bs=1000 seek=20 skip=20 conv=fdatasync
at_server "dd in two parts"
fresh
assert_exit 0 cp fresh $node
assert_exit 0 sync $node
at_server "cp onto the node"
fresh
assert_exit 0 tee $node <fresh
assert_exit 0 rmemctl sync f
at_server "tee onto the node"
# ... onto the file with conv=notrunc.
fresh
assert_exit 0 dd if=fresh of=$file bs=64k conv=notrunc,fsync
at_server "dd conv=notrunc onto the file"
dd if=/dev/zero of=fresh bs=4k seek=30 count=300 conv=notrunc status=none
assert_exit 0 dd if=/dev/zero of=$file bs=4k seek=30 count=300 conv=notrunc,fsync
at_server "zeros"

# Its size stays.
assert_exit 1 dd if=fresh of=$file bs=64k
assert_match "not permitted" "$err" "dd that truncates the file"
assert_exit 1 cp fresh $file
assert_match "not permitted" "$err" "cp onto the file"
assert_exit 1 dd if=/dev/zero of=$node bs=1000 count=1 oflag=append conv=notrunc
assert_match "No space left" "$err" "dd behind the end"
assert_exit 1 dd if=<(cat fresh fresh) of=$node bs=64k
assert_match "No space left" "$err" "dd of more than there is room"
# Whether a direct transfer is possible is asked at open.
assert_exit 1 dd if=$node of=/dev/null bs=64k iflag=direct
assert_match "Invalid argument" "$err" "dd iflag=direct"
assert_exit 0 rmemctl sync f
at_server "after what was refused"
assert_exit 0 rmemctl detach f
