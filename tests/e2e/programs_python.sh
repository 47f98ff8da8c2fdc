#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Python's mmap on a region's file and node: whole and in part, searched, written,
# flushed, copied on write, shared between processes.
. "$(dirname "$0")/lib.sh"

size=$(((4 << 20) + 1234))
/usr/bin/python3 -c "
import random, sys
sys.stdout.buffer.write(random.Random(1).randbytes($size))" >served
cp served expected
hosts_up
start_server "p=file://$work/served"
start_rmemd
attach p --chunk 64KiB

cat >use.py <<'PYTHON'
import mmap, multiprocessing, os, re, sys

expected = bytearray(open("expected", "rb").read())
size = len(expected)

# The file: its size is known, so the length may be left out.
with open("/run/rmem/regions/p", "r+b", buffering=0) as file, mmap.mmap(file.fileno(), 0) as m:
    assert len(m) == size == m.size()
    assert m[:] == expected
    needle = bytes(expected[3_000_001:3_000_033])
    assert m.find(needle) == 3_000_001 and m.rfind(needle) == 3_000_001
    assert re.search(re.escape(needle), m).start() == 3_000_001
    for at, text in ((0, b"first"), (65_533, b"across a chunk"), (size - 4, b"last")):
        m[at:at + len(text)] = expected[at:at + len(text)] = text
    m.move(100_000, 200_000, 50_000)
    expected[100_000:150_000] = expected[200_000:250_000]
    m.flush()
    m.flush(mmap.PAGESIZE, 2 * mmap.PAGESIZE)
    # What one way wrote the others read.
    assert os.pread(file.fileno(), 14, 65_533) == b"across a chunk"
    os.pwrite(file.fileno(), b"by pwrite", 1_000_000)
    expected[1_000_000:1_000_009] = b"by pwrite"
    assert m[1_000_000:1_000_009] == b"by pwrite"
    try:
        m.resize(size + mmap.PAGESIZE)
        raise SystemExit("a region was resized")
    except (OSError, SystemError, ValueError):
        pass

    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as private:
        private[0:7] = b"private"
        assert m[0:5] == b"first"

# The node: has no size of its own, but a mapping may start anywhere.
with open("/dev/rmem-p", "r+b", buffering=0) as node:
    offset = 16 * mmap.ALLOCATIONGRANULARITY
    with mmap.mmap(node.fileno(), 1 << 20, offset=offset) as m:
        assert m[:] == expected[offset:offset + (1 << 20)]
        m.madvise(mmap.MADV_RANDOM)
        view = memoryview(m).cast("Q")
        view[0] = 0x1122334455667788
        view.release()
        expected[offset:offset + 8] = (0x1122334455667788).to_bytes(8, "little")
        # Four processes, a quarter each, through the mapping they inherited.
        def fill(worker):
            for at in range(worker << 18, (worker + 1) << 18, mmap.PAGESIZE):
                m[at + 8:at + 16] = at.to_bytes(8, "big")
        workers = [multiprocessing.get_context("fork").Process(target=fill, args=(n,)) for n in range(4)]
        for w in workers:
            w.start()
        for w in workers:
            w.join()
            assert w.exitcode == 0
        for at in range(0, 1 << 20, mmap.PAGESIZE):
            expected[offset + at + 8:offset + at + 16] = at.to_bytes(8, "big")
        assert m[:] == expected[offset:offset + (1 << 20)]
    os.fsync(node.fileno())

open("expected", "wb").write(expected)
PYTHON
assert_exit 0 /usr/bin/python3 use.py
# The last flush was fsync: nothing else is needed for the server to have it.
cmp served expected || fail "the server has other bytes"
assert_clean p
assert_exit 0 rmemctl detach p
