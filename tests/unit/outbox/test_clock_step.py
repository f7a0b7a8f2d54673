"""Clocks that are wrong by much: nothing is given up or forgotten because of them."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from cc_slurm_adapter.config.config import parse_config
from cc_slurm_adapter.daemon.activities import TIMING
from cc_slurm_adapter.daemon.daemon import Daemon, Timing
from cc_slurm_adapter.outbox import clock_step
from cc_slurm_adapter.outbox.clock_step import CLOCK_STEP, LARGE_STEP, Ages, ClockStep, is_plausible
from cc_slurm_adapter.sinks.base import Kind
from cc_slurm_adapter.system import backoff
from tests.fakes.slurm_and_sinks import make_run
from tests.fakes.waiting import PATIENCE, comes
from tests.unit.daemon.test_main_loop import Site

DAY = 86400
YEAR = 365 * DAY
QUICK = Timing(clock_check=0.01)


class Host:
    """A clock that somebody sets, beside one that nobody sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead = 0.0
        real, steady = time.time, time.monotonic
        self._passed = 0.0
        monkeypatch.setattr(time, "time", lambda: real() + self._ahead + self._passed)
        monkeypatch.setattr(clock_step, "_clock_offset", lambda: 1000.0 + self._ahead)
        monkeypatch.setattr(time, "monotonic", lambda: steady() + self._passed)

    def set_by(self, seconds: float) -> None:
        self._ahead += seconds

    def let_pass(self, seconds: float) -> None:
        self._passed += seconds


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(monkeypatch)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (0.0, False),
        (-5.0, False),
        (1_600_000_000.0, False),  # 2020
        (1_767_225_599.0, False),  # the last second of 2025
        (1_767_225_600.0, True),
        (1_800_000_000.0, True),
        (2_500_000_000.0, True),  # 2049
        (4_102_444_800.0, False),  # 2100
        (4_294_967_295.0, False),  # the last second of 32 bits
    ],
)
def test_a_clock_that_cannot_be_right_is_known_by_the_age_of_this_program(now: float, *, expected: bool) -> None:
    assert is_plausible(now) == expected


def test_a_clock_that_was_set_is_seen_until_that_was_taken(host: Host) -> None:
    clock = ClockStep()
    assert clock.step() == 0
    host.set_by(CLOCK_STEP / 2)
    assert clock.step() == 0
    host.set_by(100)
    assert clock.step() == 100 + CLOCK_STEP / 2
    clock.followed(clock.step())
    assert clock.step() == 0


@pytest.fixture
def waiting(host: Host) -> Daemon:
    """A daemon on a host whose clock shows a time in 1970."""
    host.set_by(5 * DAY - time.time())
    return Daemon(parse_config({"ccRestUrl": "http://127.0.0.1:1", "ccRestJwt": "token"})[0])


def test_a_start_waits_until_the_clock_is_set(waiting: Daemon, host: Host, caplog: pytest.LogCaptureFixture) -> None:
    thread = threading.Thread(target=waiting._wait_for_clock, kwargs={"timing": QUICK}, daemon=True)
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    host.set_by(56 * YEAR + 100 * DAY)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    waits, goes_on = caplog.records
    assert (waits.levelname, goes_on.levelname) == ("WARNING", "NOTICE")
    assert "says 1970-01-0" in waits.message
    assert "was set, it says 2026-" in goes_on.message


def test_a_start_that_waits_for_the_clock_can_be_stopped(waiting: Daemon, caplog: pytest.LogCaptureFixture) -> None:
    thread = threading.Thread(target=waiting._wait_for_clock, kwargs={"timing": QUICK}, daemon=True)
    thread.start()
    waiting._ask_to_stop()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert "was set" not in caplog.text


@pytest.mark.parametrize(
    ("steps", "expected"),
    [([], True), ([LARGE_STEP], True), ([-YEAR], True), ([LARGE_STEP + 1], False), ([YEAR, -YEAR], False)],
)
def test_ages_are_wrong_after_a_clock_was_set_forward_by_much(
    host: Host, steps: list[float], *, expected: bool
) -> None:
    ages = Ages(7 * DAY)
    for step in steps:
        host.set_by(step)
        ages.are_right()
    assert ages.are_right() == expected
    host.let_pass(7 * DAY - 1)
    assert ages.are_right() == expected
    host.let_pass(1)
    assert ages.are_right()


def test_a_clock_that_is_set_forward_by_years_parks_and_forgets_nothing(tmp_path: Path, host: Host) -> None:
    """As on a host without a battery, when the network gives it the time after the daemon has begun."""
    site = Site(tmp_path, poll_interval=0.02)
    try:
        site.slurm.put(make_run(1, start=int(time.time()) - 100))
        assert comes(lambda: ("start", 1) in site.owed())
        site.loop.stop()  # from here on step by step
        site.thread.join(PATIENCE)
        host.set_by(3 * YEAR)
        for _ in range(2):
            site.loop.activities.upkeep.tidy()
        assert site.outbox.counts() == {"pending": 1}
        assert site.outbox.open_runs("lab")
        host.let_pass(40 * DAY)  # now it has waited long enough by any clock
        site.loop.activities.upkeep.tidy()
        assert site.outbox.counts() == {"parked": 1}
        assert site.owed() == {(Kind.START.value, 1)}
    finally:
        site.close()


def test_what_does_not_depend_on_ages_is_tidied_after_the_clock_was_set_forward(
    tmp_path: Path, host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """It would rest for a month: what is parked for a reason that has lost its probe, and the daily lines."""
    retries = backoff.Timing(clock=lambda: time.monotonic())  # the one that the test moves
    site = Site(tmp_path, poll_interval=0.02, timing=TIMING._replace(retries=retries))
    try:
        for job_id in (1, 2):
            site.slurm.put(make_run(job_id, start=int(time.time()) - 100))
        assert comes(lambda: len(site.owed()) == 2)
        site.loop.stop()  # from here on step by step
        site.thread.join(PATIENCE)
        starts = site.outbox.deliveries.due("cc_rest", time.time(), 9)
        for start in starts:
            site.outbox.deliveries.parked(start, "HTTP 400: no resources")
        site.outbox.deliveries.conflict(starts[0], "another run is stored")
        host.let_pass(DAY)
        host.set_by(2 * DAY)
        caplog.clear()
        site.loop.activities.upkeep.tidy()
        assert site.outbox.counts() == {"conflict": 1, "parked": 1}
        assert "parked: 1 for cc_rest" in caplog.text
        assert site.outbox.deliveries.next_due("cc_rest", time.time()) == pytest.approx(
            time.time() + 3600, abs=PATIENCE
        )
    finally:
        site.close()
