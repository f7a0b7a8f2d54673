"""Requeued jobs: cc-backend gets the first run with its own times, and refuses the second one or has it too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .campaign import Campaign
from .expectations import WHAT_IT_HOLDS, choose, expected_holdings, reported_holdings
from .installation import times_and_end
from .requeues import KINDS

if TYPE_CHECKING:
    from examples.practice.cc_backend.store import JobRow

pytestmark = pytest.mark.slurm


@pytest.mark.parametrize("kind", KINDS)
def test_the_job_ran_as_often_as_it_should(campaign: Campaign, kind: str) -> None:
    """Otherwise the tests below would compare nothing."""
    assert len(campaign.requeued[kind].runs) == 1 + KINDS[kind].runs_again


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_run_is_stored_with_its_own_times_and_end(campaign: Campaign, kind: str) -> None:
    job_id, held, runs = campaign.requeued[kind]
    row = rows_by_start(campaign, job_id)[0]
    expected = (held.start_time, runs[0].end_time, KINDS[kind].state)
    assert times_and_end(row) == expected, campaign.installed.said_about([job_id])
    assert choose(reported_holdings(row.start), WHAT_IT_HOLDS) == expected_holdings(held)


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_that_waits_again_is_understood(campaign: Campaign, kind: str) -> None:
    lines = campaign.installed.said_about([campaign.requeued[kind].job_id])
    assert "cannot be understood" not in str(lines)


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.runs_again])
def test_the_second_run_is_stored_or_named_as_shadowed(campaign: Campaign, kind: str) -> None:
    """cc-backend refuses every start within a day of another run in its table, and that run's row stays as it is.

    A run is there when it has ended. The second one starts here a second later: when accounting does not have the end
    by then, cc-backend takes both.
    """
    job_id, _, (first, second) = campaign.requeued[kind]
    assert second.start_time is not None
    assert second.start_time > first.end_time - 1
    lines = campaign.installed.lines_about(job_id, second.start_time)
    row, *more = rows_by_start(campaign, job_id)
    assert row.stops == 1
    if more:
        assert [times_and_end(each) for each in more] == [(second.start_time, second.end_time, "completed")]
    else:
        assert any("not stored, another run of this job is" in line for line in lines), lines


def rows_by_start(campaign: Campaign, job_id: int) -> list[JobRow]:
    """All rows of a job, of which there is one at least."""
    rows = campaign.installed.backend.rows_of(job_id)
    assert rows, campaign.installed.said_about([job_id])
    return sorted(rows, key=lambda row: row.key.start_time)
