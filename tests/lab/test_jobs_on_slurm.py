"""Jobs of every kind arrive at cc-backend as Slurm ran them."""

from __future__ import annotations

import os.path

import pytest

from .campaign import Campaign
from .expectations import WHAT_IT_HOLDS, as_text, choose, expected_holdings, reported_holdings
from .installation import expected_times_and_end, listed_cpus, times_and_end
from .kinds import BRIEF, CASES, UNREPORTED
from .slurm_conf import CLUSTER
from .slurm_jobs import PCI_ADDRESSES

pytestmark = pytest.mark.slurm

WHOSE_IT_IS = ("cluster", "partition", "project", "user", "arrayJobId")
SCRIPT_LIMIT = 2**20
"""Bytes: the default of jobScriptMaxBytes."""


@pytest.mark.parametrize("case", CASES)
def test_every_job_of_a_case_ran_and_has_one_row(campaign: Campaign, case: str) -> None:
    """Otherwise the tests below would compare nothing."""
    rows = [campaign.installed.only_row(job_id) for job_id in campaign.jobs[case]]
    assert len(rows) == CASES[case].tasks


@pytest.mark.parametrize("case", CASES)
def test_hosts_cores_and_gpus_are_those_that_slurm_shows(campaign: Campaign, case: str) -> None:
    for job_id in campaign.jobs[case]:
        row = campaign.installed.only_row(job_id)
        reported = choose(reported_holdings(row.start), WHAT_IT_HOLDS)
        assert reported == expected_holdings(campaign.running[job_id])


@pytest.mark.parametrize("case", CASES)
def test_times_and_state_are_those_of_accounting(campaign: Campaign, case: str) -> None:
    for job_id in campaign.jobs[case]:
        row = campaign.installed.only_row(job_id)
        job = campaign.ended[job_id]
        # Not the start of accounting: for a job that was resized it is the time of that.
        expected = (campaign.running[job_id].start_time, job.end_time, job.state.lower())
        assert times_and_end(row) == expected, campaign.installed.said_about([job_id])
        assert (row.state, row.stops) == (CASES[case].state, 1)
        assert row.start["walltime"] == CASES[case].job.minutes * 60


@pytest.mark.parametrize("case", CASES)
def test_user_account_partition_and_array_are_right(campaign: Campaign, case: str) -> None:
    for job_id in campaign.jobs[case]:
        row = campaign.installed.only_row(job_id)
        job = campaign.running[job_id]
        assert job.user == CASES[case].job.user
        expected = (CLUSTER, job.partition, job.account, job.user, job.array_job_id)
        assert tuple(choose(row.start, WHOSE_IT_IS).values()) == expected
        assert row.start["shared"] == CASES[case].shared


@pytest.mark.parametrize("case", CASES)
def test_name_and_text_of_slurm_come_along(campaign: Campaign, case: str) -> None:
    for job_id in campaign.jobs[case]:
        job = campaign.running[job_id]
        metadata = campaign.installed.only_row(job_id).start["metaData"]
        assert metadata["jobName"] == as_text(CASES[case].job.name)
        assert metadata["slurmInfo"].startswith(f"JobId={job_id} ")
        assert metadata["slurmInfo"].count("\n   JobState=") == 1
        assert metadata["submitTime"] == str(job.submit_time)
        expected = ("None", "None") if job.het_job_id is None else (str(job.het_job_id), str(job.het_job_offset))
        assert (str(metadata.get("hetJobId")), str(metadata.get("hetJobOffset"))) == expected


@pytest.mark.parametrize("case", CASES)
def test_the_script_comes_along(campaign: Campaign, case: str) -> None:
    script = as_text(CASES[case].job.whole_script)
    for job_id in campaign.jobs[case]:
        reported = campaign.installed.only_row(job_id).start["metaData"].get("jobScript", "")
        if len(script) <= SCRIPT_LIMIT:
            assert reported == script
        else:
            kept = len(os.path.commonprefix([reported, script]))
            assert SCRIPT_LIMIT - 1024 <= kept <= SCRIPT_LIMIT
            assert "cut" in reported[kept:]
            assert str(len(script)) in reported[kept:]


@pytest.mark.parametrize("kind", UNREPORTED)
def test_some_jobs_are_never_reported(campaign: Campaign, kind: str) -> None:
    job_id = campaign.unreported[kind]
    assert campaign.ended[job_id].state == UNREPORTED[kind].state
    told = [request.path for request in campaign.installed.backend.log if request.job == (CLUSTER, job_id)]
    assert told == []


def test_gpu_jobs_of_one_second_have_all_they_held(campaign: Campaign) -> None:
    """No test can look at so short a job while it runs, but accounting knows how much it held, and where.

    Three Slurms and two machines with systemd share two cores: a second in which the daemon gets no CPU may cost some
    of these jobs their GPUs.
    """
    jobs = campaign.brief["one second"]
    assert len(jobs) == BRIEF["one second"].times
    for job_id in jobs:
        assert_as_accounted(campaign, job_id)
    without = [job_id for job_id in jobs if not gpus_of(campaign, job_id)]
    assert len(without) <= len(jobs) // 5, campaign.installed.said_about(without)
    assert all(missing_of(campaign, job_id) == "gpus" for job_id in without)


def test_gpu_jobs_that_take_no_time_have_their_cores_and_say_what_is_missing(campaign: Campaign) -> None:
    """Slurm forgets a job's GPUs when it ends, which here is some milliseconds after the hook was called."""
    assert len(campaign.brief["no time"]) == BRIEF["no time"].times
    for job_id in campaign.brief["no time"]:
        assert_as_accounted(campaign, job_id)
        assert missing_of(campaign, job_id) == (None if gpus_of(campaign, job_id) else "gpus")


def assert_as_accounted(campaign: Campaign, job_id: int) -> None:
    """Node, counts, times and end of a small job with one GPU."""
    row = campaign.installed.only_row(job_id)
    job = campaign.ended[job_id]
    (resource,) = row.start["resources"]
    assert resource["hostname"] == job.hosts[0]
    assert listed_cpus(resource) == job.num_cpus
    assert row.start["numAcc"] == job.num_gpus == 1
    assert times_and_end(row) == expected_times_and_end(job)


def missing_of(campaign: Campaign, job_id: int) -> str | None:
    """What the row says that it lacks."""
    missing: str | None = campaign.installed.only_row(job_id).start["metaData"].get("incomplete")
    return missing


def gpus_of(campaign: Campaign, job_id: int) -> list[str]:
    """The PCI addresses that were reported of a job with one GPU."""
    (resource,) = campaign.installed.only_row(job_id).start["resources"]
    accelerators: list[str] = resource.get("accelerators", [])
    assert len(accelerators) <= 1
    assert set(accelerators) <= set(PCI_ADDRESSES)
    return accelerators
