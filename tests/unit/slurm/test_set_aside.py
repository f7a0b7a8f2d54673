"""Jobs for which Slurm's own command fails: said once, asked for ever more seldom, and again when they can be read."""

from __future__ import annotations

import logging

import pytest

from cc_slurm_adapter.log import NOTICE
from cc_slurm_adapter.slurm.set_aside import (
    AT_FIRST,
    FIRST_WAIT,
    LONGEST_WAIT,
    MAX_JOBS,
    NO_HOPE,
    SAID_FROM,
    TIMES_AS_LONG,
    SetAside,
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_job_is_asked_for_ever_more_seldom_but_at_least_hourly(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    aside = SetAside(clock)
    asked, day = [], 86400
    for second in range(day):
        clock.now = 1000.0 + second
        if aside.without([6, 7]) == [6, 7]:
            asked.append(second)
            aside.failed(7, "squeue: exit code -11")
        else:
            assert aside.without([6, 7]) == [6]
    waits = [after - before for before, after in zip(asked, asked[1:])]
    assert waits[0] == FIRST_WAIT
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_WAIT
    (line,) = (record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)
    assert line.startswith("job 7: Slurm's own command fails for it, the other jobs go on: squeue: exit code -11.")
    assert "scontrol show job 7" in line


def fail_until(aside: SetAside, clock: Clock, wait: float) -> None:
    """The job 7 fails at each try until it waits so long."""
    seconds = FIRST_WAIT
    aside.failed(7, "squeue: exit code -11")
    while seconds < wait:
        clock.now += seconds
        aside.failed(7, "squeue: exit code -11")
        seconds *= 2


def test_a_job_that_is_answered_for_again_is_told_and_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    aside = SetAside(clock)
    fail_until(aside, clock, SAID_FROM)
    aside.answered([6, 7])
    assert aside.without([7]) == [7]
    assert caplog.messages[-1] == "job 7 can be asked for again"
    fail_until(aside, clock, SAID_FROM)
    told = [record.levelname for record in caplog.records if record.levelno >= NOTICE]
    assert told == ["ERROR", "NOTICE", "ERROR"]


def test_a_job_that_failed_by_chance_is_no_word_worth(caplog: pytest.LogCaptureFixture) -> None:
    aside = SetAside(Clock())
    aside.failed(7, "squeue: exit code 1")
    aside.answered([7])
    assert aside.without([7]) == [7]
    assert [record for record in caplog.records if record.levelno >= logging.INFO] == []


@pytest.mark.parametrize(("took", "wait"), [(0.0, FIRST_WAIT), (1.5, 1.5 * TIMES_AS_LONG), (60.0, AT_FIRST)])
def test_what_takes_long_to_fail_is_asked_for_more_seldom(took: float, wait: float) -> None:
    clock = Clock()
    aside = SetAside(clock)
    aside.failed(7, "squeue: no answer", took)
    clock.now += wait - 0.1
    assert aside.without([7]) == []
    clock.now += 0.2
    assert aside.without([7]) == [7]
    assert wait < NO_HOPE


def test_however_many_fail_the_memory_is_bounded() -> None:
    aside = SetAside(Clock())
    for job_id in range(10 * MAX_JOBS):
        aside.failed(job_id, "no")
    assert len(aside.without(range(10 * MAX_JOBS))) == 9 * MAX_JOBS
