"""Jobs for which Slurm's own command fails: logged once, queried less and less often, logged when it works again."""

from __future__ import annotations

import logging

import pytest

from cc_slurm_adapter.log import NOTICE
from cc_slurm_adapter.slurm.postponed_jobs import (
    FIRST_WAIT,
    LOGGED_FROM,
    LONGEST_FIRST_WAIT,
    LONGEST_WAIT,
    MAX_JOBS,
    NO_HOPE,
    TIMING,
    PostponedJobs,
)
from cc_slurm_adapter.system.grouped_lines import SOON


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_job_is_asked_for_ever_more_seldom_but_at_least_hourly(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    postponed = PostponedJobs(clock)
    asked, day = [], 86400
    for second in range(day):
        clock.now = 1000.0 + second
        if postponed.due([6, 7]) == [6, 7]:
            asked.append(second)
            postponed.failed(7, "squeue: exit code -11")
        else:
            assert postponed.due([6, 7]) == [6]
    waits = [after - before for before, after in zip(asked, asked[1:])]
    assert waits[0] == FIRST_WAIT
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_WAIT
    (line,) = (record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)
    assert line.startswith("job 7: Slurm's own command fails for it, the other jobs go on: squeue: exit code -11.")
    assert "scontrol show job 7" in line


def fail_until(postponed: PostponedJobs, clock: Clock, wait: float) -> None:
    """The job 7 fails at each try until it waits so long."""
    seconds = FIRST_WAIT
    postponed.failed(7, "squeue: exit code -11")
    while seconds < wait:
        clock.now += seconds
        postponed.failed(7, "squeue: exit code -11")
        seconds *= 2


def test_a_job_that_is_answered_for_again_is_told_and_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    postponed = PostponedJobs(clock)
    fail_until(postponed, clock, LOGGED_FROM)
    postponed.succeeded([6, 7])
    assert postponed.due([7]) == [7]
    assert caplog.messages[-1] == "job 7 can be asked for again"
    fail_until(postponed, clock, LOGGED_FROM)
    clock.now += SOON
    postponed.due([])
    told = [record.levelname for record in caplog.records if record.levelno >= NOTICE]
    assert told == ["ERROR", "NOTICE", "ERROR"]


def test_a_thousand_jobs_with_the_same_failure_are_two_lines(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    postponed = PostponedJobs(clock)
    for _ in range(10):
        for job_id in postponed.due(range(1, 1001)):
            postponed.failed(job_id, f"squeue -j {job_id}: exit code -11")
        clock.now += SOON
    postponed.due([])
    assert [line.split(":")[0] for line in caplog.messages] == ["job 1", "999 more jobs, the first is job 2"]


def test_a_job_that_failed_by_chance_is_no_word_worth(caplog: pytest.LogCaptureFixture) -> None:
    postponed = PostponedJobs(Clock())
    postponed.failed(7, "squeue: exit code 1")
    postponed.succeeded([7])
    assert postponed.due([7]) == [7]
    assert [record for record in caplog.records if record.levelno >= logging.INFO] == []


@pytest.mark.parametrize(
    ("took", "wait"), [(0.0, FIRST_WAIT), (1.5, 1.5 * TIMING.wait_per_second), (60.0, LONGEST_FIRST_WAIT)]
)
def test_what_takes_long_to_fail_is_asked_for_more_seldom(took: float, wait: float) -> None:
    clock = Clock()
    postponed = PostponedJobs(clock)
    postponed.failed(7, "squeue: no answer", took)
    clock.now += wait - 0.1
    assert postponed.due([7]) == []
    clock.now += 0.2
    assert postponed.due([7]) == [7]
    assert wait < NO_HOPE


def test_however_many_fail_the_memory_is_bounded() -> None:
    postponed = PostponedJobs(Clock())
    for job_id in range(10 * MAX_JOBS):
        postponed.failed(job_id, "no")
    assert len(postponed.due(range(10 * MAX_JOBS))) == 9 * MAX_JOBS
