"""Whatever happens to the daemon, every run is reported once and every stop arrives."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterable

import pytest

from examples.practice.cc_backend import DEFAULT_TOKEN

from .installation import STATE_FOLDER, Installation, expected_times_and_end, times_and_end
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
from .slurm_lab import CLUSTER, THREADS_PER_CORE, SlurmLab

pytestmark = pytest.mark.slurm

LONG = Submission(script="sleep 600", name="long")
DAEMON_AWAY = 3.0
"""Seconds between a kill -9 and the next start."""
SEEN = 2.0
"""Seconds that a run must have beside a running daemon to count as seen by it."""


def assert_reported_once(installation: Installation, ended: dict[int, EndedJob]) -> None:
    """One row for each job, with the times and the end of Slurm's accounting."""
    rows = {job_id: installation.only_row(job_id) for job_id in ended}
    reported = {job_id: times_and_end(row) for job_id, row in rows.items()}
    assert reported == {job_id: expected_times_and_end(job) for job_id, job in ended.items()}


def test_nothing_is_lost_or_doubled_by_kill_9_while_cc_backend_is_away(
    lab: SlurmLab, installation: Installation
) -> None:
    """Killed with running jobs, then again amid the delivery of what had piled up."""
    installation.start()
    jobs = [submit_gpu_job(lab, seconds) for seconds in range(1, 9)]
    installation.server.stop()
    cc_backend_left = time.monotonic()
    jobs += [submit_gpu_job(lab, seconds) for seconds in range(1, 13)]
    time.sleep(4)
    installation.kill()
    killed = time.time()
    jobs += [submit_gpu_job(lab, seconds) for seconds in (1, 1, 8, 8)]
    time.sleep(DAEMON_AWAY)
    installation.start()
    started = time.time()
    ended = wait_until_ended(lab, jobs)
    time.sleep(max(0.0, cc_backend_left + 20 - time.monotonic()))
    installation.server.start()
    assert installation.backend.wait_for(lambda: len(installation.backend.rows) >= len(jobs) // 2, 45)
    installation.kill()
    installation.start()
    installation.wait_for_stops(jobs, seconds=60)
    assert_reported_once(installation, ended)
    seen = [job for job in ended.values() if not hidden_by(job, killed - SEEN, started + SEEN)]
    assert len(seen) >= len(jobs) // 2
    for job in seen:
        assert_complete(installation, job)


def submit_gpu_job(lab: SlurmLab, seconds: int) -> int:
    return submit(lab, Submission(("-n1", "--gres=gpu:1"), f"sleep {seconds}"))


def hidden_by(job: EndedJob, begin: float, end: float) -> bool:
    """Whether the whole run may have been within that time, in Unix seconds."""
    return job.start_time is not None and job.start_time >= begin and job.end_time <= end


def assert_complete(installation: Installation, job: EndedJob) -> None:
    """The row has the cores and GPUs that Slurm counted."""
    (resource,) = installation.only_row(job.job_id).start["resources"]
    assert resource["hostname"] == job.hosts[0]
    assert len(resource["hwthreads"]) * THREADS_PER_CORE == job.num_cpus
    accelerators = resource.get("accelerators", [])
    assert len(accelerators) == job.num_gpus, installation.said_about([job.job_id])


def test_stops_arrive_of_jobs_that_the_existing_adapter_had_reported(lab: SlurmLab, installation: Installation) -> None:
    """Some end while neither program runs."""
    jobs = [submit(lab, LONG) for _ in range(20)]
    wait_until_running(lab, jobs)
    for job_id in jobs:
        report_as_existing_adapter(installation, running_job(lab, job_id, LONG.name))
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


def test_node_states_count_what_runs(lab: SlurmLab, installation: Installation) -> None:
    """Of the whole cluster: 6 jobs of one core, that is two CPUs each, two of them with a GPU."""
    jobs = [submit(lab, LONG) for _ in range(4)]
    jobs += [submit(lab, LONG._replace(options=("-n1", "--gres=gpu:1"))) for _ in range(2)]
    wait_until_running(lab, jobs)
    installation.start()
    wanted = {"cpusAllocated": 12, "gpusAllocated": 2, "jobsRunning": 6, "memoryAllocated": 1200}
    installation.backend.wait_for(lambda: allocated(installation, wanted) == wanted, 20)
    assert allocated(installation, wanted) == wanted


def allocated(installation: Installation, names: Iterable[str]) -> dict[str, int]:
    reports = [report.payload for report in installation.backend.node_states.values()]
    return {name: sum(report[name] for report in reports) for name in names}
