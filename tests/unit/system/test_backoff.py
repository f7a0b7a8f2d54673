"""How long is waited after failures."""

from __future__ import annotations

import logging
import time

import pytest

from cc_slurm_adapter.errors import CommandCancelled, CommandFailed, NoRoom
from cc_slurm_adapter.system.backoff import Backoff, RetriedStep, Timing
from tests.fakes.clock import Clock


def test_waiting_grows_to_its_limit_and_starts_again() -> None:
    backoff = Backoff(1, 20, jitter=lambda: 1.0)
    assert [backoff.failed() for _ in range(7)] == [1, 2, 4, 8, 16, 20, 20]
    backoff.succeeded()
    assert backoff.failed() == 1
    assert Backoff(8, 20, jitter=lambda: 0.25).failed() == 2


def test_each_attempt_at_a_step_is_observed() -> None:
    seen: list[tuple[float, bool]] = []
    step = RetriedStep("asking")
    step.observe = lambda *each: seen.append(each)

    def fail() -> None:
        raise CommandFailed("no")

    def stop() -> None:
        raise CommandCancelled("the daemon stops")

    step.attempt(lambda: None)
    step.attempt(fail)
    step.attempt(stop)
    assert [has_worked for _, has_worked in seen] == [True, False]
    assert all(seconds >= 0 for seconds, _ in seen)


def test_parts_of_an_attempt_are_observed_together() -> None:
    """Accounting is read an hour at a time: that is one attempt, which takes as long as all its parts."""
    seen: list[tuple[float, bool]] = []
    step = RetriedStep("reading")
    step.observe = lambda *each: seen.append(each)
    step.attempt(lambda: busy(0.05))
    step.attempt(lambda: busy(0.05))
    assert seen == []
    step.attempt(lambda: True)
    step.attempt(lambda: True)
    (first, _), (second, _) = seen
    assert first >= 0.1
    assert second < first


def test_no_room_is_no_failure_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    step = RetriedStep("reading", timing=Timing(clock=clock))
    seen: list[tuple[float, bool]] = []
    step.observe = lambda *each: seen.append(each)

    def wait() -> None:
        raise NoRoom("many messages wait")

    for _ in range(3):
        assert not step.attempt(wait)
        assert (step.is_waiting, step.is_failing, step.report.failing_since) == (True, False, 0.0)
        assert not step.may_run()
        clock.now += 5
        assert step.may_run()
    assert seen == []
    assert [record.getMessage() for record in caplog.records] == ["reading waits: many messages wait"]
    assert step.attempt(lambda: None)
    assert not step.is_waiting
    assert step.report.last_success > 0


def busy(seconds: float) -> bool:
    """Take so long, and leave some of the work undone."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return False
