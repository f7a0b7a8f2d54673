"""Files that are gzip's, with nothing compressed in them."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packages.stored_gzip import LARGEST_BLOCK, stored_gzip


@given(st.binary(max_size=300))
def test_gzip_reads_it(content: bytes) -> None:
    assert gzip.decompress(stored_gzip(content)) == content


@pytest.mark.parametrize("size", [0, 1, LARGEST_BLOCK - 1, LARGEST_BLOCK, LARGEST_BLOCK + 1, 3 * LARGEST_BLOCK])
def test_blocks_of_every_size_are_read(size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    assert gzip.decompress(stored_gzip(content[:size])) == content[:size]


def test_no_name_and_no_time_is_in_it() -> None:
    """Flags and time are bytes 3 to 7 (RFC 1952)."""
    assert stored_gzip(b"x")[3:8] == bytes(5)
