"""At a site without slurmdbd everything but catch-up works from slurmctld alone."""

from __future__ import annotations

import pytest

from .expectations import WHAT_IT_HOLDS, choose, expected_holdings, reported_holdings
from .installation import listed_cpus, times_and_end
from .slurm_conf import THREADS_PER_CORE
from .without_slurmdbd import JOBS, SmallCampaign

pytestmark = pytest.mark.slurm

ENDED = [name for name in JOBS if name != "requeued"]


@pytest.mark.parametrize("name", JOBS)
def test_hosts_cores_and_gpus_are_those_that_slurm_shows(small_campaign: SmallCampaign, name: str) -> None:
    row = small_campaign.installed.only_row(small_campaign.jobs[name])
    assert choose(reported_holdings(row.start), WHAT_IT_HOLDS) == expected_holdings(small_campaign.running[name])
    assert row.start["user"] == JOBS[name].user
    assert row.start["metaData"]["jobName"] == JOBS[name].name


@pytest.mark.parametrize("name", ENDED)
def test_times_and_state_are_those_of_slurmctld(small_campaign: SmallCampaign, name: str) -> None:
    job_id = small_campaign.jobs[name]
    row = small_campaign.installed.only_row(job_id)
    assert times_and_end(row) == (*small_campaign.ended[job_id], name), small_campaign.installed.said_about([job_id])


def test_a_gpu_job_that_takes_no_time_has_its_cores_and_says_what_is_missing(small_campaign: SmallCampaign) -> None:
    """Slurm forgets a job's GPUs when it ends."""
    row = small_campaign.installed.only_row(small_campaign.brief)
    assert times_and_end(row) == (*small_campaign.ended[small_campaign.brief], "completed")
    (resource,) = row.start["resources"]
    assert listed_cpus(resource) == row.start["numHwthreads"] == THREADS_PER_CORE
    assert resource.get("accelerators") or row.start["metaData"].get("incomplete") == "gpus"


def test_the_first_run_of_a_requeued_job_ends_with_the_requeue(small_campaign: SmallCampaign) -> None:
    job_id = small_campaign.jobs["requeued"]
    row = small_campaign.installed.only_row(job_id)
    assert (row.start_time, row.state) == (small_campaign.running["requeued"].start_time, "cancelled")
    before, after = small_campaign.requeue
    assert row.stop_time is not None, small_campaign.installed.said_about([job_id])
    assert before <= row.stop_time <= after


def test_node_states_are_right(small_campaign: SmallCampaign) -> None:
    assert small_campaign.figures == {name: node.figures for name, node in small_campaign.nodes.items()}
    assert any(figures[-1] for figures in small_campaign.figures.values())


def test_the_log_says_what_is_not_possible(small_campaign: SmallCampaign) -> None:
    lines = small_campaign.installed.log.read_text(encoding="utf-8", errors="replace").splitlines()
    assert any("WARNING" in line and "slurmdbd" in line and "cannot be caught up" in line for line in lines)
