"""slurmdbd that is stopped and slurmctld that is frozen, while jobs run and end."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, NamedTuple

from .namespaces import LabError, wait_for
from .slurm_jobs import Submission, cancel

if TYPE_CHECKING:
    from .installation import Installation
    from .troubles import Jobs

FROZEN_SECONDS = 45.0
WITHOUT_SLURMDBD = [
    Submission(("-n1", "--gres=gpu:1"), "sleep 15"),
    Submission(("-N2", "-n4", "--gres=gpu:2"), "sleep 15; exit 3"),
    Submission(("-n1",), "sleep 600"),
]
"""The last one is cancelled."""
WHOLLY_WITHOUT = Submission(("-n1",), "sleep 2")
ENDING_SECONDS = 25
ENDING = [
    Submission(("-n1", "--gres=gpu:1"), f"sleep {ENDING_SECONDS}"),
    Submission(("-N2", "-n4"), f"sleep {ENDING_SECONDS}; exit 3"),
]
LASTING = [Submission(("-n1", "--gres=gpu:1"), "sleep 600"), Submission(("-n1",), "sleep 600", user="alice")]
AFTERWARDS = Submission(("-n1",), "sleep 8")

FAILED = "reading accounting failed"
"""The daemon's words."""


class NoAccounting(NamedTuple):
    """Jobs that ended while slurmdbd was stopped."""

    jobs: list[int]
    """The daemon had reported their starts, was away then, and slurmctld had forgotten them when it came back."""
    wholly: int
    """It began and ended while both were away."""
    stopped_in_time: set[int]
    """What another daemon, which ran all the time, had stopped before slurmdbd was back."""
    stopped_at_first: set[int]
    """What the daemon had stopped before slurmdbd was back."""
    survived: bool
    """Whether the daemon still ran then."""


class Frozen(NamedTuple):
    """Jobs that ran while slurmctld was frozen."""

    ending: list[int]
    lasting: list[int]
    """They ran on after it."""
    afterwards: int
    began: float
    """Unix seconds."""
    ended: float
    running: dict[str, bool]
    """Whether each daemon still ran at its end."""
    stopped: dict[str, set[int]]
    """What each of them had stopped by then."""
    stopped_later: dict[str, set[int]]
    """What each of them had stopped when it had reported the whole of a later job."""


def stop_slurmdbd(jobs: Jobs, installed: Installation, witness: Installation) -> NoAccounting:
    """`installed` is away while the jobs end, `witness` sees everything."""
    lab = installed.lab
    job_ids = jobs.submit(*WITHOUT_SLURMDBD)
    jobs.note(job_ids)
    installed.wait_for_starts(job_ids, seconds=60)
    installed.kill()
    lab.stop_slurmdbd()
    (wholly,) = jobs.submit(WHOLLY_WITHOUT)
    cancel(lab, job_ids[-1:])
    jobs.wait_until_forgotten([*job_ids, wholly])
    installed.start()
    with contextlib.suppress(LabError):
        wait_for("a question to accounting", lambda: FAILED in installed.log.read_text(encoding="utf-8"), seconds=30)
    stopped_in_time, at_first, survived = witness.stopped(), installed.stopped(), installed.running
    lab.start_slurmdbd()
    with contextlib.suppress(AssertionError):
        installed.wait_for_stops([*job_ids, wholly], seconds=90)
    return NoAccounting(job_ids, wholly, stopped_in_time, at_first, survived)


def freeze_slurmctld(jobs: Jobs, installed: dict[str, Installation]) -> Frozen:
    """All daemons are there, and all cc-backends answer."""
    lab = next(iter(installed.values())).lab
    ending, lasting = jobs.submit(*ENDING), jobs.submit(*LASTING)
    jobs.note([*ending, *lasting])
    for each in installed.values():
        each.wait_for_starts([*ending, *lasting], seconds=60)
    began = time.time()
    with lab.frozen_slurmctld():
        time.sleep(FROZEN_SECONDS)
        running = {name: each.running for name, each in installed.items()}
        stopped = {name: each.stopped() for name, each in installed.items()}
    ended = time.time()
    (afterwards,) = jobs.submit(AFTERWARDS)
    stopped_later = {}
    for name, each in installed.items():
        with contextlib.suppress(AssertionError):
            each.wait_for_stops([*ending, afterwards], seconds=60)
        stopped_later[name] = each.stopped()
    cancel(lab, lasting)
    return Frozen(ending, lasting, afterwards, began, ended, running, stopped, stopped_later)
