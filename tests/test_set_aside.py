"""Jobs for which Slurm's own command fails: said once, asked for ever more seldom, and again when they can be read."""

from __future__ import annotations

import logging

import pytest

from cc_slurm_adapter.slurm.set_aside import FIRST_WAIT, LONGEST_WAIT, MAX_JOBS, SetAside


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_job_is_asked_for_ever_more_seldom_but_at_least_hourly(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    aside = SetAside(clock)
    asked, day = [], 86400
    for second in range(0, day, 10):
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


def test_a_job_that_is_answered_for_again_is_told_and_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    aside = SetAside(clock)
    aside.failed(7, "squeue: exit code -11")
    clock.now += FIRST_WAIT
    aside.answered([6, 7])
    assert aside.without([7]) == [7]
    assert caplog.messages[-1] == "job 7 can be asked for again"
    aside.failed(7, "squeue: exit code -11")
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING", "ERROR"]


def test_however_many_fail_the_memory_is_bounded() -> None:
    aside = SetAside(Clock())
    for job_id in range(10 * MAX_JOBS):
        aside.failed(job_id, "no")
    assert len(aside.without(range(10 * MAX_JOBS))) == 9 * MAX_JOBS
