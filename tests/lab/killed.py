"""A daemon that is killed with running jobs, while cc-backend is away, and again amid the delivery of what piled up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from .namespaces import PATIENCE
from .slurm_jobs import EndedJob, Submission, clear_queue, submit, wait_until_ended

if TYPE_CHECKING:
    from .installation import Installation
    from .slurm_lab import SlurmLab

DAEMON_AWAY = 3.0
"""Seconds between the first kill and the next start."""
CC_BACKEND_AWAY = 20.0
SEEN = 2.0
"""Seconds that a run must have beside a running daemon to count as seen by it."""


class Killed(NamedTuple):
    """What accounting and cc-backend know at the end."""

    ended: dict[int, EndedJob]
    seen: list[int]
    """Those of the jobs that a daemon must have seen while they ran."""
    installed: Installation


def run_killed(installed: Installation) -> Killed:
    """Runs jobs of 1 to 12 seconds; takes half a minute."""
    lab = installed.lab
    installed.start()
    jobs = [submit_gpu_job(lab, seconds) for seconds in range(1, 9)]
    installed.server.stop()
    cc_backend_left = time.monotonic()
    jobs += [submit_gpu_job(lab, seconds) for seconds in range(1, 13)]
    time.sleep(4)
    installed.kill()
    killed = time.time()
    jobs += [submit_gpu_job(lab, seconds) for seconds in (1, 1, 8, 8)]
    time.sleep(DAEMON_AWAY)
    installed.start()
    started = time.time()
    ended = wait_until_ended(lab, jobs)
    time.sleep(max(0.0, cc_backend_left + CC_BACKEND_AWAY - time.monotonic()))
    installed.server.start()
    assert installed.backend.wait_for(lambda: len(installed.backend.rows) >= len(jobs) // 2, PATIENCE * 45)
    installed.kill()
    installed.start()
    installed.wait_for_stops(jobs, seconds=60)
    installed.kill()
    clear_queue(lab)
    hidden = {job.job_id for job in ended.values() if is_hidden(job, killed - SEEN, started + SEEN)}
    return Killed(ended, [job_id for job_id in jobs if job_id not in hidden], installed)


def submit_gpu_job(lab: SlurmLab, seconds: int) -> int:
    return submit(lab, Submission(("-n1", "--gres=gpu:1"), f"sleep {seconds}"))


def is_hidden(job: EndedJob, begin: float, end: float) -> bool:
    """Whether the whole run may have been within that time, in Unix seconds."""
    return job.start_time is not None and job.start_time >= begin and job.end_time <= end
