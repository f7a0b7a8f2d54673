"""Moments as people write them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from cc_slurm_adapter.cli.moments import parse_moment, parse_span
from cc_slurm_adapter.errors import UsageError

NOW = 1_790_000_000.5


@pytest.fixture(autouse=True)
def _berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 1_790_000_000 - 90),
        ("90min", 1_790_000_000 - 5400),
        ("2h", 1_790_000_000 - 7200),
        ("7d", 1_790_000_000 - 604_800),
        ("2w", 1_790_000_000 - 1_209_600),
        ("2026-01-31", 1_769_814_000),  # date -d '2026-01-31 00:00 +0100' +%s
        ("2026-01-31T14:00", 1_769_864_400),
        ("2026-01-31 14:00:30", 1_769_864_430),
        ("2026-07-01T00:00", 1_782_856_800),  # in summer time
        ("1769814000", 1_769_814_000),
    ],
)
def test_a_span_a_date_or_seconds(text: str, seconds: int) -> None:
    assert parse_moment("since", text, NOW) == seconds


@pytest.mark.parametrize("text", ["", "soon", "2 h", "h", "-2h", "31.01.2026", "2026-13-01", "12345", "²h"])
def test_what_is_no_moment_is_refused_with_what_would_be(text: str) -> None:
    with pytest.raises(UsageError, match=r"-since .* is no moment: give a span before now"):
        parse_moment("since", text, NOW)


@pytest.mark.parametrize("text", ["99999d", "999999999w", "1970-01-01", "1931-01-31T14:00", "100000000"])
def test_what_no_accounting_has_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"-since .* is more than 20 years ago"):
        parse_moment("since", text, NOW)


@pytest.mark.parametrize("text", ["2026-12-31", "1790000001"])
def test_a_moment_in_the_future_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"-until .* is in the future"):
        parse_moment("until", text, NOW)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10min", 600), ("2h", 7200), ("1w", 604_800)])
def test_a_span(text: str, seconds: int) -> None:
    assert parse_span("timeout", text) == seconds


@pytest.mark.parametrize("text", ["", "10", "0s", "-1s", "1 h", "soon", "1769814000", "2026-01-31", "\u0661s"])
def test_what_is_no_span(text: str) -> None:
    with pytest.raises(UsageError, match=r"-timeout .* is no span of time: give one as 90s, 10min, 2h or 7d"):
        parse_span("timeout", text)
