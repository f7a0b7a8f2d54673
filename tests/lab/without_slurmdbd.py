"""Some jobs on a cluster without slurmdbd, where only slurmctld can say what became of them."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, NamedTuple

from .namespaces import PATIENCE, wait_for
from .slurm_jobs import (
    EPOCH_SECONDS,
    RunningJob,
    Submission,
    cancel,
    field,
    record_of,
    running_job,
    submit,
    wait_until_running,
)
from .slurm_nodes import NodeNow, nodes_now, reported_figures

if TYPE_CHECKING:
    from .installation import Installation
    from .slurm_lab import SlurmLab

JOBS = {
    "completed": Submission(("-N2", "-n4", "--gres=gpu:1"), "sleep 8"),
    "failed": Submission(("-n1",), "sleep 8; exit 3"),
    "cancelled": Submission(("-n1", "-c3"), "sleep 600"),
    "requeued": Submission(("-n1", "--gres=gpu:2"), "sleep 600"),
}
"""By the state in cc-backend's word, but for the last one, whose first run is cancelled."""
NO_TIME_AT_ALL = Submission(("-n1", "--gres=gpu:1"), "true")
FINAL = {"COMPLETED", "FAILED", "CANCELLED"}


class Times(NamedTuple):
    """A job that is over, as slurmctld shows it. Unix seconds."""

    start_time: int
    end_time: int


class SmallCampaign(NamedTuple):
    """What slurmctld and cc-backend know at the end."""

    jobs: dict[str, int]
    brief: int
    running: dict[str, RunningJob]
    ended: dict[int, Times]
    requeue: tuple[int, int]
    """Unix seconds before and after the requeued job was taken from its node."""
    nodes: dict[str, NodeNow]
    """While some of the jobs ran."""
    figures: dict[str, tuple[int, ...]]
    """What was reported of them then."""
    installed: Installation


def run_without_slurmdbd(installed: Installation) -> SmallCampaign:
    """Runs all jobs through a daemon that is started here; about half a minute."""
    lab = installed.lab
    installed.start()
    jobs = {name: submit(lab, job) for name, job in JOBS.items()}
    wait_until_running(lab, jobs.values())
    running = {name: running_job(lab, job_id, JOBS[name]) for name, job_id in jobs.items()}
    installed.wait_for_starts(jobs.values(), seconds=60)
    brief = submit(lab, NO_TIME_AT_ALL)
    requeue = requeue_and_hold(lab, jobs["requeued"])
    ended = {job_id: wait_for_times(lab, job_id) for job_id in (brief, jobs["completed"], jobs["failed"])}
    nodes, figures = compare_nodes(installed)
    cancel(lab, [jobs["cancelled"], jobs["requeued"]])
    ended[jobs["cancelled"]] = wait_for_times(lab, jobs["cancelled"])
    with contextlib.suppress(AssertionError):  # the tests say which ones are missing, each for itself
        installed.wait_for_stops([brief, *jobs.values()], seconds=15)
    installed.kill()
    return SmallCampaign(jobs, brief, running, ended, requeue, nodes, figures, installed)


def requeue_and_hold(lab: SlurmLab, job_id: int) -> tuple[int, int]:
    before = int(time.time())
    lab.output("scontrol", "requeuehold", str(job_id))
    wait_for("the requeued job to wait", lambda: "JobState=PENDING" in show(lab, job_id), seconds=30, every=0.2)
    return before, int(time.time()) + 1


def show(lab: SlurmLab, job_id: int, *options: str) -> str:
    """What scontrol says of a job; with -d also which cores and devices it holds."""
    return record_of(lab.output(*EPOCH_SECONDS, "scontrol", "show", "job", *options, str(job_id)), job_id)


def wait_for_times(lab: SlurmLab, job_id: int) -> Times:
    """slurmctld remembers a job for half a minute after its end."""
    wait_for(f"the end of job {job_id}", lambda: field(show(lab, job_id), "JobState", r"(\w+)") in FINAL, seconds=40)
    text = show(lab, job_id)
    return Times(int(field(text, "StartTime", r"(\d+)")), int(field(text, "EndTime", r"(\d+)")))


def compare_nodes(installed: Installation) -> tuple[dict[str, NodeNow], dict[str, tuple[int, ...]]]:
    """What Slurm says and what was reported, as soon as they agree or after two polls."""
    nodes = nodes_now(installed.lab)
    expected = {name: node.figures for name, node in nodes.items()}
    installed.backend.wait_for(lambda: reported_figures(installed) == expected, PATIENCE * 12)
    return nodes, reported_figures(installed)
