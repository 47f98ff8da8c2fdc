#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""tsc.py: the rate of this machine's time stamp counter in kHz, for run.sh."""
import ctypes
import mmap
import time

# rdtsc; shl rdx, 32; or rax, rdx; ret
CODE = bytes.fromhex("0f31 48c1e220 4809d0 c3")

page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(CODE)
rdtsc = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(page)))


def now():
    """Ticks and ns that belong together: of many readings the one that was least interrupted."""
    def reading():
        before, ticks, after = time.monotonic_ns(), rdtsc(), time.monotonic_ns()
        return after - before, ticks, (before + after) // 2
    return min(reading() for _ in range(100))[1:]


first_ticks, first_ns = now()
time.sleep(0.03)
ticks, ns = now()
print(round((ticks - first_ticks) * 1e6 / (ns - first_ns)))
