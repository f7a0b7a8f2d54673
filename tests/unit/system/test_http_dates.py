"""Dates of HTTP, held against the standard library's, which reads and writes those of emails too."""

from __future__ import annotations

from email.utils import formatdate, parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.system.http_dates import format_http_date, parse_http_date

moments = st.integers(-(10**9), 2**33)


@given(moments)
def test_a_moment_is_written_as_the_standard_library_writes_it(moment: int) -> None:
    assert format_http_date(moment) == formatdate(moment, usegmt=True)


@given(moments)
def test_a_date_is_read_as_the_standard_library_reads_it(moment: int) -> None:
    text = formatdate(moment, usegmt=True)
    assert parse_http_date(f" {text}") == parsedate_to_datetime(text).timestamp() == moment


def test_a_leap_second_is_the_second_after_its_minute() -> None:
    assert parse_http_date("Sat, 31 Dec 2016 23:59:60 GMT") == 1483228800


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "tomorrow",
        "\x00",
        "Mon, 99 Nov 2026 10:00:00 GMT",
        "Mon, 30 Feb 2026 10:00:00 GMT",
        "Mon, 02 Nov 2026 24:00:00 GMT",
        "Mon, 02 Nov 2026 10:60:00 GMT",
        "Mon, 02 Nov 2026 10:00:61 GMT",
        "Mon, 02 Nov 0000 10:00:00 GMT",
        "Mon, 02 Nov 2026 10:00:00 +0100",
        "Mon, ٠٢ Nov 2026 10:00:00 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ],
)
def test_what_is_no_date_is_none(text: str) -> None:
    assert parse_http_date(text) is None
