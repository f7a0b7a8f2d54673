"""Whatever happens to the daemon, every run is reported once and every stop arrives."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterable

import pytest

from examples.practice.cc_backend import DEFAULT_TOKEN

from .installation import STATE_FOLDER, Installation, expected_times_and_end, listed_cpus, times_and_end
from .killed import Killed
from .slurm_conf import CLUSTER
from .slurm_jobs import (
    PCI_ADDRESSES,
    EndedJob,
    RunningJob,
    Submission,
    cancel,
    running_job,
    submit,
    wait_until_ended,
    wait_until_running,
)
from .slurm_lab import SlurmLab

pytestmark = pytest.mark.slurm

LONG = Submission(script="sleep 600", name="long")


def assert_reported_once(installation: Installation, ended: dict[int, EndedJob]) -> None:
    """One row for each job, with the times and the end of Slurm's accounting."""
    rows = {job_id: installation.only_row(job_id) for job_id in ended}
    reported = {job_id: times_and_end(row) for job_id, row in rows.items()}
    assert reported == {job_id: expected_times_and_end(job) for job_id, job in ended.items()}


def test_nothing_is_lost_or_doubled_by_kill_9_while_cc_backend_is_away(killed: Killed) -> None:
    assert_reported_once(killed.installed, killed.ended)
    assert len(killed.seen) >= len(killed.ended) // 2
    for job_id in killed.seen:
        assert_complete(killed.installed, killed.ended[job_id])


def assert_complete(installation: Installation, job: EndedJob) -> None:
    """The row has the cores and GPUs that Slurm counted."""
    (resource,) = installation.only_row(job.job_id).start["resources"]
    assert resource["hostname"] == job.hosts[0]
    assert listed_cpus(resource) == job.num_cpus
    accelerators = resource.get("accelerators", [])
    assert len(accelerators) == job.num_gpus, installation.said_about([job.job_id])


def test_stops_arrive_of_jobs_that_the_existing_adapter_had_reported(lab: SlurmLab, installation: Installation) -> None:
    """Some end while neither program runs."""
    jobs = [submit(lab, LONG) for _ in range(20)]
    wait_until_running(lab, jobs)
    for job_id in jobs:
        report_as_existing_adapter(installation, running_job(lab, job_id, LONG))
    installation.backend.commit()
    installation.touch_last_run()
    between, later = jobs[:5], jobs[5:]
    cancel(lab, between)
    wait_until_ended(lab, between)
    installation.start()
    installation.wait_for_stops(between, seconds=40)
    assert not installation.stopped() & set(later)
    assert_all_stop(lab, installation, jobs, later)


def report_as_existing_adapter(installation: Installation, job: RunningJob) -> None:
    """The start request of the existing adapter, empty fields and all."""
    resources = [
        {
            "hostname": host,
            "hwthreads": list(held.cores),
            "accelerators": [PCI_ADDRESSES[gpu] for gpu in held.gpus],
        }
        for host, held in job.held.items()
    ]
    request = {
        "cluster": CLUSTER,
        "subCluster": "",
        "partition": job.partition,
        "project": job.account,
        "user": job.user,
        "shared": "multi_user",
        "jobState": "",
        "resources": resources,
        "energyFootprint": None,
        "footprint": None,
        "metaData": {"jobName": LONG.name},
        "concurrentJobs": {"items": None, "count": 0},
        "energy": 0,
        "jobId": job.job_id,
        "duration": 0,
        "numHwthreads": job.num_cpus,
        "numNodes": job.num_nodes,
        "statistics": None,
        "startTime": job.start_time,
    }
    headers = {"X-AUTH-TOKEN": DEFAULT_TOKEN, "Content-Type": "application/json"}
    url = f"{installation.server.url}/api/jobs/start_job/"
    post = urllib.request.Request(url, json.dumps(request).encode(), headers)  # noqa: S310 (the stand-in's URL)
    with urllib.request.urlopen(post, timeout=10) as answer:  # noqa: S310
        assert answer.status == 201


def assert_all_stop(
    lab: SlurmLab, installation: Installation, jobs: Iterable[int], still_running: Iterable[int]
) -> None:
    cancel(lab, still_running)
    ended = wait_until_ended(lab, jobs)
    installation.wait_for_stops(jobs, seconds=40)
    assert_reported_once(installation, ended)


@pytest.mark.parametrize("committed", [True, False], ids=["long ago", "just now"])
def test_stops_arrive_after_the_state_file_was_deleted(
    lab: SlurmLab, installation: Installation, committed: bool
) -> None:
    """Whether cc-backend lists the running jobs already or not, and some end while the daemon is away."""
    installation.start()
    jobs = [submit(lab, LONG) for _ in range(20)]
    installation.wait_for_starts(jobs, seconds=60)
    if committed:
        installation.backend.commit()
    installation.stop()
    delete_state(lab)
    between, later = jobs[:5], jobs[5:]
    cancel(lab, between)
    wait_until_ended(lab, between)
    installation.start()
    assert_all_stop(lab, installation, jobs, later)


def delete_state(lab: SlurmLab) -> None:
    files = list(lab.path(STATE_FOLDER).glob("state.sqlite*"))
    assert files
    for file in files:
        file.unlink()
