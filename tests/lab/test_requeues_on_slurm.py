"""Requeued jobs: cc-backend gets the first run with its own times, and takes no second one within a day."""

from __future__ import annotations

import pytest

from .campaign import Campaign
from .expectations import WHAT_IT_HOLDS, choose, expected_holdings, reported_holdings
from .installation import times_and_end
from .requeues import KINDS

pytestmark = pytest.mark.slurm


@pytest.mark.parametrize("kind", KINDS)
def test_the_job_ran_as_often_as_it_should(campaign: Campaign, kind: str) -> None:
    """Otherwise the tests below would compare nothing."""
    assert len(campaign.requeued[kind].runs) == 1 + KINDS[kind].runs_again


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_run_is_stored_with_its_own_times_and_end(campaign: Campaign, kind: str) -> None:
    job_id, held, runs = campaign.requeued[kind]
    row = campaign.installed.only_row(job_id)
    expected = (held.start_time, runs[0].end_time, KINDS[kind].state)
    assert times_and_end(row) == expected, campaign.installed.said_about([job_id])
    assert choose(reported_holdings(row.start), WHAT_IT_HOLDS) == expected_holdings(held)


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.runs_again])
def test_the_second_run_is_named_as_shadowed_and_not_stopped(campaign: Campaign, kind: str) -> None:
    """cc-backend refuses every start within a day of another run's; a stop would change the first run's row."""
    job_id, _, (first, second) = campaign.requeued[kind]
    assert second.start_time is not None
    assert second.start_time > first.end_time - 1
    lines = campaign.installed.lines_about(job_id, second.start_time)
    assert any("not stored, another run of this job is" in line for line in lines), lines
    assert campaign.installed.only_row(job_id).stops == 1
