"""cc-backend's clock: only what its whole seconds and the time of the request leave no doubt about."""

from __future__ import annotations

import logging
from email.utils import formatdate

import pytest

from cc_slurm_adapter.daemon.checks.clock import find_clock
from cc_slurm_adapter.sinks.clusters import ServerClock, read_clock

NOW = 1_800_000_000.0


def seen(ahead: float, *, took: float = 0.0, fraction: float = 0.0) -> ServerClock:
    """What is seen of a clock that is ahead by so many seconds, read in the middle of a request that took as long."""
    sent = NOW + fraction
    clock = read_clock(formatdate(int(sent + took / 2 + ahead), usegmt=True), sent, sent + took)
    assert clock
    return clock


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("took", [0.0, 0.2, 3.0])
@pytest.mark.parametrize("ahead", [0.0, -400.0, 12.34, 0.4, -0.4])
def test_the_true_difference_is_within_what_is_seen(ahead: float, took: float, fraction: float) -> None:
    least, most = seen(ahead, took=took, fraction=fraction).ahead
    assert least <= ahead <= most
    assert most - least == pytest.approx(1 + took)


@pytest.mark.parametrize(
    ("ahead", "level"),
    [
        (0.0, logging.INFO),
        (0.9, logging.INFO),
        (-0.9, logging.INFO),
        (4.0, logging.INFO),
        (7.0, logging.WARNING),
        (-7.0, logging.WARNING),
        (58.0, logging.WARNING),
        (62.0, logging.ERROR),
        (-62.0, logging.ERROR),
        (1e8, logging.ERROR),
    ],
)
def test_a_difference_is_judged_only_beyond_the_precision(ahead: float, level: int) -> None:
    found = find_clock(seen(ahead))
    assert found.level == level
    assert bool(found.next_step) == (level > logging.INFO)


def test_a_slow_response_proves_little() -> None:
    assert find_clock(seen(8.0, took=9.0)).level == logging.INFO


def test_which_clock_is_ahead() -> None:
    assert find_clock(seen(100.0)).text == "cc-backend's clock is at least 100.0 s ahead of this host's"
    assert find_clock(seen(-100.0)).text == "cc-backend's clock is at least 99.0 s behind this host's"


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Nov 2026 99:99:99 GMT", "0", "\x00", "1, 2 3 4"])
def test_a_date_that_is_none(date: str) -> None:
    assert read_clock(date, NOW, NOW) is None
    assert find_clock(None).level == logging.INFO
