"""The jobs of every kind that are run on a real Slurm, all at the same time, and what came of them."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, NamedTuple

from .slurm_jobs import (
    EndedJob,
    RunningJob,
    Submission,
    cancel,
    clear_queue,
    running_job,
    submit,
    wait_until_ended,
)

if TYPE_CHECKING:
    from .installation import Installation
    from .slurm_lab import SlurmLab

FORGED_NAME = (
    'it\'s "quoted" |\\ \n   UserId=root(0) Account=root Partition=excl\n'
    "     Nodes=node[03-04] CPU_IDs=0-15 Mem=1 GRES=gpu:h100:4(IDX:0-3)\n   NumNodes=7 StartTime=1"
)
SHORT_JOBS = 30


class Case(NamedTuple):
    """One kind of job and what cc-backend must be told about it beside what Slurm says."""

    job: Submission
    shared: str = "multi_user"
    state: str = "completed"
    tasks: int = 1


CASES = {
    "whole node": Case(Submission(("-N1", "--exclusive"), "sleep 8"), shared="none"),
    "exclusive partition": Case(Submission(("-n1", "--partition=excl"), "sleep 8"), shared="none"),
    "one core": Case(Submission(("-n1",), "sleep 8")),
    "several nodes": Case(Submission(("-N2", "-n4"), "sleep 8")),
    "GPUs": Case(Submission(("-N2", "--gres=gpu:2"), "sleep 8", minutes=30)),
    "array": Case(Submission(("-n1", "--array=0-3"), "sleep 8"), tasks=4),
    "failed": Case(Submission(("-n1",), "sleep 6; exit 3"), state="failed"),
    "cancelled": Case(Submission(("-n1",), "sleep 600"), state="cancelled"),
    "of another user": Case(Submission(("-n1", "-c3"), "sleep 8", user="alice")),
    "forged name": Case(Submission(("-n1", "--gres=gpu:1"), "sleep 8", name=FORGED_NAME)),
}
NEVER_RAN = Submission(("-n1", "--hold"))
SHORT = Submission(("-n1", "--gres=gpu:1"), "sleep 1", name="short")


class Campaign(NamedTuple):
    """What Slurm and cc-backend know at the end. Job ids are the keys of `running` and `ended`."""

    jobs: dict[str, list[int]]
    """The job ids of each case."""
    never_ran: int
    short: list[int]
    running: dict[int, RunningJob]
    ended: dict[int, EndedJob]
    installed: Installation
    """Its daemon has ended, cc-backend's rows are still there."""


def run_campaign(installed: Installation) -> Campaign:
    """Runs all jobs through a daemon that is started here; about a minute."""
    lab = installed.lab
    installed.start()
    submitted = {submit(lab, case.job): name for name, case in CASES.items()}
    never_ran = submit(lab, NEVER_RAN)
    jobs, running = watch(lab, submitted)
    cancel(lab, [never_ran, *jobs["cancelled"]])
    short = [submit(lab, SHORT) for _ in range(SHORT_JOBS)]
    ended = wait_until_ended(lab, [never_ran, *short, *running])
    with contextlib.suppress(AssertionError):  # the tests say which ones are missing, each for itself
        installed.wait_for_stops([*short, *running], seconds=15)
    installed.kill()
    clear_queue(lab)
    return Campaign(jobs, never_ran, short, running, ended, installed)


def watch(lab: SlurmLab, submitted: dict[int, str]) -> tuple[dict[str, list[int]], dict[int, RunningJob]]:
    """Notes of every job what it holds, until all of them were seen running, or for a minute.

    Returns the job ids of each case, where the tasks of an array have their own, and what was noted.
    """
    jobs: dict[str, list[int]] = {name: [] for name in CASES}
    running: dict[int, RunningJob] = {}
    deadline = time.monotonic() + 60
    while len(running) < sum(case.tasks for case in CASES.values()) and time.monotonic() < deadline:
        for job_id, name in running_cases(lab, submitted):
            if job_id not in running:
                running[job_id] = running_job(lab, job_id, CASES[name].job.name)
                jobs[name].append(job_id)
        time.sleep(0.2)
    return jobs, running


def running_cases(lab: SlurmLab, submitted: dict[int, str]) -> list[tuple[int, str]]:
    """The jobs that run now, with the name of their case. %F is the array's id, or the job's own."""
    lines = lab.output("squeue", "-h", "-a", "-t", "R", "-o", "%A %F").splitlines()
    pairs = [tuple(map(int, line.split())) for line in lines]
    return [(job_id, submitted[base]) for job_id, base in pairs if base in submitted]
