#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A QEMU whose RAM is a region (memory-backend-file): its guest writes all over
# it, QEMU is killed, the region evicted, and another QEMU, another guest program
# finds every word. The guest is its own firmware, some bytes of machine code.
. "$(dirname "$0")/lib.sh"

# At reset: real mode at ffff:fff0, the image below 4 GiB. Fills or checks the
# words from 1 MiB to 5 MiB, each its address turned over, says how it went on
# port 0xe9 and halts.
cat >firmware.s <<'ASM'
	.code16
	.org 0xff00
start:	cli
	lgdtl %cs:(gdtr - image)
	movl $1, %eax
	movl %eax, %cr0
	ljmpl $8, $(0xffff0000 + flat - image)
	.code32
flat:	movw $16, %ax
	movw %ax, %ds
	movl $0x100000, %ebx
next:	movl %ebx, %eax
	notl %eax
.ifdef FILL
	movl %eax, (%ebx)
.else
	cmpl %eax, (%ebx)
	jne wrong
.endif
	addl $4, %ebx
	cmpl $0x500000, %ebx
	jne next
	movb $'k', %al
	jmp say
wrong:	movb $'!', %al
say:	outb %al, $0xe9
halt:	hlt
	jmp halt
	.balign 8
gdt:	.quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr:	.word 23
	.long 0xffff0000 + gdt - image
	.org 0xfff0
	.code16
	jmp start
	.org 0x10000
ASM
sed -i '1i image:' firmware.s
for guest in fill check; do
	as --32 --defsym ${guest^^}=1 -o $guest.o firmware.s
	objcopy -O binary -j .text $guest.o $guest.bin
	assert_eq 65536 "$(stat -c %s $guest.bin)" "size of $guest.bin"
done

size=$((16 << 20))
truncate -s $size served
hosts_up
start_server "ram=file://$work/served"
start_rmemd
attach ram --chunk 64KiB

qemu() { # FIRMWARE
	rm -f said monitor
	qemu-system-x86_64 -accel tcg -machine pc,memory-backend=ram -m 16M -nodefaults -display none \
		-object memory-backend-file,id=ram,size=16M,mem-path=/run/rmem/regions/ram,share=on \
		-bios "$1" -debugcon file:said -monitor unix:monitor,server=on,wait=off \
		-no-reboot >"$1.log" 2>&1 &
	pids[qemu]=$!
	wait_for test -s said
	assert_eq k "$(<said)" "what the guest says"
}
monitor() { # COMMAND: as a person would type it
	socat -t 5 - unix-connect:monitor <<<"$1" | tr -d '\r'
}

qemu fill.bin
# What QEMU takes for its guest's RAM is what the region has: all but the hole
# for video and firmware, where the guest sees something else.
assert_exit 0 monitor stop
assert_match '0xffefffff' "$(monitor 'xp /1wx 0x100000')" "the first word"
save() { # FIRST LENGTH FILE
	# Without quotes the path would be a division.
	assert_exit 0 monitor "pmemsave $1 $2 \"$work/$3\""
	wait_for is_size "$2" "$3"
}
is_size() { [[ $(stat -c %s "$2") == "$1" ]]; }
low=$((0xa0000)) above=$((1 << 20))
save 0 $low low
save $above $((size - above)) high
compare() { # PATH
	cmp -n $low low "$1" || fail "$1: other low memory"
	cmp -n $((size - above)) -i 0:$above high "$1" || fail "$1: other high memory"
}
compare /run/rmem/regions/ram
assert_exit 6 rmemctl detach ram
stop qemu KILL
wait_for region_is ram users 0
assert_exit 0 rmemctl sync ram
assert_clean ram
compare served

assert_exit 0 rmemctl drop ram
assert_eq 0 "$(region ram resident_bytes)" "resident bytes"
fetched=$(region ram fetched_bytes)
qemu check.bin
assert_ge $(($(region ram fetched_bytes) - fetched)) $((4 << 20)) "bytes fetched for the second guest"
monitor quit >/dev/null
wait_for region_is ram users 0
unset 'pids[qemu]'
assert_exit 0 rmemctl detach ram
compare served
