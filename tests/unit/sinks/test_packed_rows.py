"""Rows of a long list, which say the same as a list of tuples does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.sinks.base import PackedRows, RunningRow

SMALL = st.builds(RunningRow, st.integers(-2, 3), st.integers(-2, 3))
ANY = st.builds(RunningRow, st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-(1 << 63), (1 << 63) - 1))


@given(st.lists(SMALL), st.lists(SMALL))
def test_it_has_the_rows_of_the_list_and_no_other(rows: list[RunningRow], others: list[RunningRow]) -> None:
    packed = PackedRows(rows)
    assert (len(packed), list(packed)) == (len(rows), rows)
    assert [row in packed for row in others] == [row in rows for row in others]
    assert packed.among(others) == {row for row in others if row in rows}


@given(ANY)
def test_numbers_of_64_bits_are_kept_as_they_are(row: RunningRow) -> None:
    assert list(PackedRows([row])) == [row]


@pytest.mark.parametrize("row", [RunningRow(1 << 63, 1), RunningRow(1, -(1 << 63) - 1)])
def test_a_larger_number_is_refused(row: RunningRow) -> None:
    with pytest.raises(OverflowError):
        PackedRows([row])
