"""Runs the jobs of every kind, all at the same time, and keeps what came of them."""

from __future__ import annotations

import contextlib
import fcntl
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .kinds import BRIEF, CASES, IGNORED, UNREPORTED
from .requeues import Requeued, run_requeues
from .slurm_jobs import EndedJob, RunningJob, clear_queue, running_job, submit, wait_until_ended

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .installation import Installation
    from .slurm_lab import SlurmLab

LATER = 7.0
"""Seconds; the lab's daemon polls every 5."""


class Campaign(NamedTuple):
    """What Slurm and cc-backend know at the end. Job ids are the keys of `running` and `ended`."""

    jobs: dict[str, list[int]]
    """The job ids of each case."""
    unreported: dict[str, int]
    brief: dict[str, list[int]]
    running: dict[int, RunningJob]
    ended: dict[int, EndedJob]
    requeued: dict[str, Requeued]
    installed: Installation
    """Its daemon has ended, cc-backend's rows are still there."""


def run_campaign(installed: Installation) -> Campaign:
    """Runs all jobs through a daemon that is started here; about two minutes."""
    lab = installed.lab
    installed.configure(**IGNORED)
    installed.start()
    with ThreadPoolExecutor() as threads:
        requeues = threads.submit(run_requeues, installed)
        # Slurm looks at the time limit twice a minute only.
        names = sorted(CASES, key=lambda name: CASES[name].state != "timeout")
        watch = Watch(installed, {submit(lab, CASES[name].job): name for name in names})
        unreported = {name: submit(lab, kind.job) for name, kind in UNREPORTED.items()}
        for name, job_id in unreported.items():
            do(lab, UNREPORTED[name].while_held, job_id)
        watch.until_all_ran(seconds=150)
        brief = run_brief(lab)
        reported = [*chain(*brief.values()), *watch.running]
        ended = wait_until_ended(lab, [*unreported.values(), *reported], seconds=120)
        requeued = requeues.result()
    with contextlib.suppress(AssertionError):  # the tests say which ones are missing, each for itself
        installed.wait_for_stops(reported, seconds=15)
    installed.kill()
    clear_queue(lab)
    return Campaign(watch.jobs, unreported, brief, watch.running, ended, requeued, installed)


def run_brief(lab: SlurmLab) -> dict[str, list[int]]:
    """The ids of all brief jobs by name; they are over."""
    with one_burst():
        brief = {name: [submit(lab, jobs.job) for _ in range(jobs.times)] for name, jobs in BRIEF.items()}
        wait_until_ended(lab, chain(*brief.values()))
    return brief


@contextlib.contextmanager
def one_burst() -> Iterator[None]:
    """Clusters share this machine, also those of other processes, and a block here waits for theirs to end.

    Jobs of a second are no fair test while another cluster has its burst of them.
    """
    with Path(__file__).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def do(lab: SlurmLab, commands: Iterable[str], job_id: int) -> None:
    """Runs what a table says; {} is the job's id."""
    for command in commands:
        lab.output(*(word.replace("{}", str(job_id)) for word in command.split()))


class Watch:
    """Notes of every job what it holds while it runs, and does to it what its case says."""

    def __init__(self, installed: Installation, submitted: dict[int, str]) -> None:
        self.jobs: dict[str, list[int]] = {name: [] for name in CASES}
        """The job ids of each case: tasks of an array and components of a heterogeneous job have their own."""
        self.running: dict[int, RunningJob] = {}
        self._installed = installed
        self._submitted = submitted
        self._acted: dict[int, float] = {}
        """When the case's first commands were run, in seconds of the monotonic clock."""
        self._done: set[int] = set()

    def until_all_ran(self, seconds: float) -> None:
        """Until all jobs were seen running and their cases' commands were run, or for so long."""
        wanted = sum(case.tasks for case in CASES.values())
        deadline = time.monotonic() + seconds
        while len(self._done) < wanted and time.monotonic() < deadline:
            self._note_running()
            for job_id in self.running.keys() & self._installed.started() - self._done:
                self._act(job_id)
            time.sleep(0.2)
        for job_id in self.running.keys() - self._done:  # those that were not reported: the tests say so
            self._act(job_id, hurry=True)

    def _note_running(self) -> None:
        for job_id, base in running_jobs(self._installed.lab):
            name = self._submitted.get(base)
            if name and job_id not in self.running:
                self.running[job_id] = running_job(self._installed.lab, job_id, CASES[name].job)
                self.jobs[name].append(job_id)

    def _act(self, job_id: int, *, hurry: bool = False) -> None:
        (case,) = (CASES[name] for name, job_ids in self.jobs.items() if job_id in job_ids)
        if job_id not in self._acted:
            self._acted[job_id] = time.monotonic()
            do(self._installed.lab, case.once_reported, job_id)
        if hurry or not case.later or time.monotonic() > self._acted[job_id] + LATER:
            do(self._installed.lab, case.later, job_id)
            self._done.add(job_id)


def running_jobs(lab: SlurmLab) -> list[tuple[int, int]]:
    """The jobs that run now, each with the id that sbatch gave: the array's, the leader's, or its own."""
    lines = lab.output("squeue", "-h", "-a", "-t", "R", "-O", "JobID:12,ArrayJobID:12,HetJobID:12").splitlines()
    rows = [line.split() for line in lines]
    return [(int(job), int(het if het.isdigit() else array)) for job, array, het in rows]
