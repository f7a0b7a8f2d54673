"""Which run of a requeued job cc-backend has: the real one, where there are several the one that requeuedRuns says."""

from __future__ import annotations

import contextlib

import pytest

from .expectations import WHAT_IT_HOLDS, choose, expected_holdings, reported_holdings
from .installation import Installation, times_and_end
from .last_runs import run_idle, run_preempted
from .namespaces import LabError, wait_for

pytestmark = pytest.mark.slurm


def test_a_run_that_launched_nothing_is_not_reported_and_the_real_one_is(installation: Installation) -> None:
    installation.touch_last_run()  # what other tests have run is none of this one's
    installation.start()
    for name, (job_id, held, (first, second)) in run_idle(installation).items():
        said, word = installation.said_about([job_id]), name.partition(",")[0]
        assert (first.state, second.state) == (word, "COMPLETED")
        row = installation.only_row(job_id)
        assert times_and_end(row) == (held.start_time, second.end_time, "completed"), said
        assert choose(reported_holdings(row.start), WHAT_IT_HOLDS) == expected_holdings(held)
        idle = f"launched nothing before its job went back to the queue ({word})"
        assert count_lines(installation, job_id, first.start_time or 0, idle) == 1, said


def count_lines(installation: Installation, job_id: int, start_time: int, words: str) -> int:
    """Lines of the daemon's log about a run with these words; waits for the first one, which accounting brings."""

    def count() -> int:
        return sum(words in line for line in installation.lines_about(job_id, start_time))

    with contextlib.suppress(LabError):
        wait_for("a line of the log", count, seconds=30)
    return count()


@pytest.mark.parametrize("policy", ["first", "last"])
def test_the_first_or_the_last_run_of_a_preempted_job_is_kept(installation: Installation, policy: str) -> None:
    """With "last" the daemon is killed between the removal of the first run and the start of the second."""
    installation.configure(requeuedRuns=policy)
    installation.touch_last_run()  # else requeued jobs of other tests are removed, too
    installation.start()
    job_id, held, (first, second) = run_preempted(installation, killed_amid_removal=policy == "last")
    said = installation.said_about([job_id])
    assert (first.state, second.state) == ("PREEMPTED", "COMPLETED")
    row = installation.only_row(job_id)
    if policy == "last":
        assert times_and_end(row) == (held.start_time, second.end_time, "completed"), said
        assert choose(reported_holdings(row.start), WHAT_IT_HOLDS) == expected_holdings(held)
    else:
        assert times_and_end(row) == (first.start_time, first.end_time, "preempted"), said
    lines = installation.lines_about(job_id, held.start_time)
    assert any("not stored, another run of this job is" in line for line in lines) == (policy == "first"), said
