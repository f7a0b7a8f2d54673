"""Durations, moments, sizes and numbers as people write them."""

from __future__ import annotations

import time

import pytest

from cc_slurm_adapter.system.quantities import ago, at, counted, duration, moment, ranges, size


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (0.04, "0 s"),
        (0.4, "0.4 s"),
        (9.99, "9.9 s"),
        (10, "10 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (47 * 3600, "47 h"),
        (48 * 3600, "2 d"),
        (400 * 86400, "400 d"),
    ],
)
def test_a_duration_has_one_unit(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_what_never_was_is_not_long_ago() -> None:
    assert ago(0, 1_800_000_000) == "never"
    assert ago(1_800_000_000 - 720, 1_800_000_000) == "12 min ago"


def test_a_moment_has_its_date_only_if_it_is_not_of_today() -> None:
    now = 1_800_000_000.0  # 2027-01-15 08:00:00
    assert moment(now - 3600, now) == "07:00"
    assert moment(now - 8 * 3600, now) == "00:00"
    assert moment(now - 8 * 3600 - 60, now) == "2027-01-14 23:59"
    assert moment(now + 16 * 3600, now) == "2027-01-16 00:00"
    assert moment(1e18, now) == "1000000000000000000"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "08:00 (0 s ago)"),
        (4.9, "07:59 (4 s ago)"),
        (720, "07:48 (12 min ago)"),
        (2 * 86400, "2027-01-13 08:00 (2 d ago)"),
        (-720, "08:12 (in 12 min)"),
    ],
)
def test_a_moment_comes_with_how_far_away_it_is(seconds: float, expected: str) -> None:
    assert at(1_800_000_000 - seconds, 1_800_000_000) == expected


def test_sizes_and_numbers() -> None:
    assert [size(each) for each in (0, 1023, 1024, 256 * 2**20, 3 * 2**29)] == [
        *("0 bytes", "1023 bytes", "1 kB", "256 MB", "1.5 GB")
    ]
    assert [counted(each, "run") for each in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]
    assert counted(2, "run is", "runs are") == "2 runs are"
    assert counted(12_345, "message") == "12,345 messages"


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([], ""),
        ([3], "3"),
        ([3, 1, 0, 2, 7], "0-3, 7"),
        (range(0, 16, 2), "0, 2, 4, 6, 8, 10, 12, 14"),
        ([*range(0, 18, 2), 17, 18], "0, 2, 4, 6, 8, 10, 12, 14 and 3 more"),
    ],
)
def test_numbers_are_listed_with_ranges_and_only_some_of_many(numbers: list[int], expected: str) -> None:
    assert ranges(numbers) == expected
