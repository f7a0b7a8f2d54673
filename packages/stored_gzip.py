"""The gzip format with nothing compressed in it, and no name or time.

Compressors differ from machine to machine, and so would the bytes of the packages.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
"""Deflate, no name, no time, an unknown operating system (RFC 1952)."""
LARGEST_BLOCK = 0xFFFF


def stored_gzip(content: bytes) -> bytes:
    """Return a gzip file with that content."""
    return b"".join([HEADER, *_blocks(content), struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF)])


def _blocks(content: bytes) -> Iterator[bytes]:
    """Yield blocks of the kind that is stored as it is (RFC 1951, 3.2.4); the last one is marked."""
    last = max(0, len(content) - 1) // LARGEST_BLOCK * LARGEST_BLOCK
    for begin in range(0, last + 1, LARGEST_BLOCK):
        block = content[begin : begin + LARGEST_BLOCK]
        yield struct.pack("<BHH", begin == last, len(block), len(block) ^ 0xFFFF) + block
