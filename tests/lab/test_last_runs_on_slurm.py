"""Which run of a requeued job cc-backend has: the real one, where there are several the one that requeuedRuns says."""

from __future__ import annotations

import pytest

from .expectations import WHAT_IT_HOLDS, choose, expected_holdings, reported_holdings
from .installation import Installation, times_and_end
from .last_runs import run_idle, run_preempted

pytestmark = pytest.mark.slurm


def test_a_run_that_launched_nothing_is_not_reported_and_the_real_one_is(installation: Installation) -> None:
    installation.start()
    for name, (job_id, held, (first, second)) in run_idle(installation).items():
        said, word = installation.said_about([job_id]), name.partition(",")[0]
        assert (first.state, second.state) == (word, "COMPLETED")
        row = installation.only_row(job_id)
        assert times_and_end(row) == (held.start_time, second.end_time, "completed"), said
        assert choose(reported_holdings(row.start), WHAT_IT_HOLDS) == expected_holdings(held)
        lines = installation.lines_about(job_id, first.start_time or 0)
        idle = f"launched nothing before its job went back to the queue ({word})"
        assert sum(idle in line for line in lines) == 1, said


@pytest.mark.parametrize("policy", ["first", "last"])
def test_the_first_or_the_last_run_of_a_preempted_job_is_kept(installation: Installation, policy: str) -> None:
    """With "last" the daemon is killed between the removal of the first run and the start of the second."""
    installation.configure(requeuedRuns=policy)
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
