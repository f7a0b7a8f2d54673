"""Jobs of every kind arrive at cc-backend as Slurm ran them."""

from __future__ import annotations

from typing import Any

import pytest

from .campaign import CASES, SHORT_JOBS, Campaign
from .installation import expected_times_and_end, times_and_end
from .slurm_jobs import PCI_ADDRESSES, RunningJob
from .slurm_lab import CLUSTER, NODES, THREADS_PER_CORE

pytestmark = pytest.mark.slurm

WHAT_IT_HOLDS = ("resources", "numNodes", "numHwthreads", "numAcc")
WHOSE_IT_IS = ("cluster", "partition", "project", "user", "arrayJobId")


def expected_holdings(job: RunningJob) -> dict[str, Any]:
    """The fields of WHAT_IT_HOLDS, hosts in their order."""
    return {
        "resources": [
            {
                "hostname": host,
                "hwthreads": list(held.cores),
                "accelerators": [PCI_ADDRESSES[gpu] for gpu in held.gpus],
            }
            for host, held in sorted(job.held.items())
        ],
        "numNodes": job.num_nodes,
        "numHwthreads": job.num_cpus,
        "numAcc": sum(len(held.gpus) for held in job.held.values()),
    }


def reported_holdings(start: dict[str, Any]) -> dict[str, Any]:
    """The same of a start request; what is empty may be left out there."""
    resources = sorted(start["resources"], key=lambda resource: str(resource["hostname"]))
    full = [{"hwthreads": [], "accelerators": [], **resource} for resource in resources]
    return {"numAcc": 0, **start, "resources": full}


def choose(fields: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: fields.get(name) for name in names}


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
        expected = expected_times_and_end(campaign.ended[job_id])
        assert times_and_end(row) == expected, campaign.installed.said_about([job_id])
        assert row.state == CASES[case].state
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
def test_name_script_and_text_of_slurm_come_along(campaign: Campaign, case: str) -> None:
    submission = CASES[case].job
    for job_id in campaign.jobs[case]:
        row = campaign.installed.only_row(job_id)
        metadata = row.start["metaData"]
        assert metadata["jobName"] == submission.name
        assert metadata["jobScript"] == submission.whole_script
        assert metadata["slurmInfo"].startswith(f"JobId={job_id} ")
        assert metadata["slurmInfo"].count("\n   JobState=") == 1
        assert metadata["submitTime"] == str(campaign.ended[job_id].submit_time)


def test_a_job_cancelled_while_pending_is_never_reported(campaign: Campaign) -> None:
    assert campaign.ended[campaign.never_ran].state == "CANCELLED"
    assert campaign.never_ran not in campaign.installed.started()


def test_gpu_jobs_of_one_second_have_all_they_held(campaign: Campaign) -> None:
    """No test can look at so short a job while it runs, but accounting knows how much it held, and where."""
    assert len(campaign.short) == SHORT_JOBS
    for job_id in campaign.short:
        row = campaign.installed.only_row(job_id)
        job = campaign.ended[job_id]
        (resource,) = row.start["resources"]
        assert resource["hostname"] == job.hosts[0]
        assert len(set(resource["hwthreads"])) * THREADS_PER_CORE == job.num_cpus
        accelerators = resource.get("accelerators", [])
        assert len(accelerators) == job.num_gpus == 1, campaign.installed.said_about([job_id])
        assert accelerators[0] in PCI_ADDRESSES
        assert times_and_end(row) == expected_times_and_end(job)


def test_the_state_of_every_node_is_reported(campaign: Campaign) -> None:
    assert set(campaign.installed.backend.node_states) == {(CLUSTER, node) for node in NODES}
