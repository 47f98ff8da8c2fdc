#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Maps a region's node and shows some of its bytes.

    read_region.py /dev/rmem-NAME [OFFSET [LENGTH]]

OFFSET is 0 and LENGTH is 64 unless given. Up to 64 bytes are shown, and the
SHA-256 of the whole range. Only the chunks that the range touches are fetched
from the other machine.
"""
import hashlib
import mmap
import os
import sys


def dump(data, offset):
    for at in range(0, len(data), 16):
        row = data[at:at + 16]
        text = "".join(chr(b) if 32 <= b < 127 else "." for b in row)
        print(f"{offset + at:08x}  {row.hex(' '):47}  {text}")


def main(arguments):
    if not 1 <= len(arguments) <= 3:
        sys.exit(__doc__.strip())
    path = arguments[0]
    offset = int(arguments[1], 0) if len(arguments) > 1 else 0
    length = int(arguments[2], 0) if len(arguments) > 2 else 64

    fd = os.open(path, os.O_RDONLY)
    # A node, unlike a file, says 0 in st_size; seeking to its end works for both.
    size = os.lseek(fd, 0, os.SEEK_END)
    with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as region:
        data = region[offset:offset + length]
    dump(data[:64], offset)
    print(f"sha256 of {len(data)} bytes at {offset} of {size}: {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (OSError, ValueError) as error:
        sys.exit(f"read_region.py: {error}")
