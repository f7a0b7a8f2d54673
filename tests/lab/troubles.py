"""Troubles of cc-backend and Slurm on one cluster: several daemons see the same jobs, each with its own cc-backend."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from examples.practice.cc_backend import Dropped, LostAnswer, NoAnswer, OtherAnswer, refused_jobs
from examples.practice.cc_backend.faults import START_PATH

from .campaign import one_burst
from .namespaces import PATIENCE, wait_for
from .slurm_jobs import (
    EPOCH_SECONDS,
    EndedJob,
    RunningJob,
    Submission,
    cancel,
    clear_queue,
    parse_running_job,
    submit,
    wait_until_ended,
)
from .slurm_troubles import Frozen, NoAccounting, freeze_slurmctld, stop_slurmdbd

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .installation import Installation
    from .slurm_lab import SlurmLab

HOOKED, POISONED, LATE, SILENT, FLAKY = NAMES = ("", "poisoned", "late", "silent", "flaky")
"""The daemons: that of the hooks, whose cc-backend is away for a while; one with a job that is refused; one that starts
without cc-backend; one whose cc-backend hangs; and one with half of all requests failing."""
AWAY_SECONDS, SILENT_SECONDS, FLAKY_SECONDS, LATE_SECONDS = 75.0, 60.0, 40.0, 15.0

BRIEF = Submission(("-n1", "--gres=gpu:1"), "sleep 1")
BATCH = [
    *[Submission(("-N2", "-n4", "--gres=gpu:1"), "sleep 15")] * 6,
    *[Submission(("-n1", "--gres=gpu:1"), "sleep 15")] * 4,
    *[Submission(("-n1",), "sleep 15")] * 16,
    *[Submission(("-n1", "-c3"), "sleep 15", user="alice")] * 10,
    *[Submission(("-n2", "--gres=gpu:2", "--partition=spec"), "sleep 15; exit 3")] * 2,
    *[Submission(("-n1", "--partition=low"), "sleep 15")] * 2,
]
POISON = Submission(("-n1", "--hold", "--partition=fragile", "--gres=gpu:1"), "sleep 600")
BESIDE_IT = Submission(("-n1", "--partition=fragile", "--gres=gpu:1"), "sleep 15")
BESIDE_IT_TIMES = 3
LISTING = ("squeue", "-h", "-a", "-o", "%A", "-t")
AFTER_SILENCE = Submission(("-n1",), "sleep 10")


class Jobs:
    """What Slurm said of the jobs while they ran."""

    def __init__(self, lab: SlurmLab) -> None:
        self._lab = lab
        self.running: dict[int, RunningJob] = {}
        self.submitted: list[int] = []

    def submit(self, *jobs: Submission) -> list[int]:
        """Their ids, in the same order."""
        job_ids = [submit(self._lab, job) for job in jobs]
        self.submitted += job_ids
        return job_ids

    def note(self, job_ids: Iterable[int], seconds: float = 90) -> None:
        """Waits until each of the jobs was seen running."""
        wanted = set(job_ids)
        wait_for(f"jobs {sorted(wanted)} to run", lambda: wanted <= self._noted(), seconds=seconds, every=1)

    def _noted(self) -> set[int]:
        for record in self._lab.output(*EPOCH_SECONDS, "scontrol", "show", "job", "-d").split("\n\n"):
            if "JobState=RUNNING" in record:
                job = parse_running_job(record)
                self.running.setdefault(job.job_id, job)
        return set(self.running)

    def wait_until_over(self, job_ids: Iterable[int]) -> None:
        """Waits until none of them waits or runs any more."""
        self._wait_until_not_listed(set(job_ids), "PD,CF,R,CG")

    def wait_until_forgotten(self, job_ids: Iterable[int]) -> None:
        """Waits until slurmctld knows none of them any more, which it does for half a minute after their end."""
        self._wait_until_not_listed(set(job_ids), "all")

    def _wait_until_not_listed(self, job_ids: set[int], states: str) -> None:
        def are_gone() -> bool:
            return not job_ids & set(map(int, self._lab.output(*LISTING, states).split()))

        wait_for(f"jobs {sorted(job_ids)} to be gone from squeue -t {states}", are_gone, seconds=150, every=0.5)


class Away(NamedTuple):
    """cc-backend was not there. When it came back slurmctld had forgotten all jobs of the batch."""

    seconds: float
    returned: float
    """Unix seconds."""


class Poisoned(NamedTuple):
    """A job that cc-backend refuses, and those that began while it ran."""

    poison: int
    beside_it: list[int]
    rows_of_poison: int
    """Before cc-backend was ready to take it."""


class Late(NamedTuple):
    """A daemon that was started without cc-backend."""

    survived: bool
    rows: int
    """Before cc-backend came."""
    ran: list[int]
    """The jobs that had been seen running by then."""


class Silent(NamedTuple):
    """A cc-backend that took requests and did not answer."""

    stopped_meanwhile: set[int]
    waited: float
    """Seconds from its return until it knew all jobs of the batch to be over, at most 90."""
    sigterm: tuple[float, int]
    """Seconds and exit code of a stop while it hung again."""
    job_id: int
    """Began at that time."""


class Flaky(NamedTuple):
    """Half of all requests failed. Counts of requests."""

    requests: int
    failed: int


class Troubles(NamedTuple):
    """What Slurm and the cc-backends know at the end. Each trouble is by itself: one may fail without the others."""

    installed: dict[str, Installation]
    brief: list[int]
    batch: list[int]
    running: dict[int, RunningJob]
    ended: dict[int, EndedJob]
    away: Future[Away]
    poisoned: Future[Poisoned]
    late: Future[Late]
    silent: Future[Silent]
    flaky: Future[Flaky]
    without_slurmdbd: Future[NoAccounting]
    frozen: Future[Frozen]


def run_troubles(lab: SlurmLab, installed: dict[str, Installation]) -> Troubles:
    """Installations by NAMES; about three minutes."""
    jobs = Jobs(lab)
    with ThreadPoolExecutor() as threads:
        installed[LATE].server.stop()
        list(threads.map(start, installed.values()))
        troubles = CcBackendTroubles(jobs, installed)
        brief, batch = troubles.submit()
        late = threads.submit(troubles.come_late)
        flaky = threads.submit(troubles.end_flakiness)
        silent = threads.submit(troubles.end_silence)
        jobs.note(batch)
        poisoned = threads.submit(troubles.refuse_poison)
        away = threads.submit(troubles.come_back)
        late.exception()  # waits for its end
        without_slurmdbd = threads.submit(stop_slurmdbd, jobs, installed[LATE], installed[POISONED])
        for part in (away, poisoned, silent, flaky, without_slurmdbd):
            part.exception()
        frozen = threads.submit(freeze_slurmctld, jobs, installed)
    for each in installed.values():
        with contextlib.suppress(AssertionError):  # the tests say which ones are missing, each for itself
            each.wait_for_stops(jobs.submitted, seconds=15)
        each.kill()
    clear_queue(lab)
    ended = wait_until_ended(lab, jobs.submitted)
    return Troubles(
        installed, brief, batch, jobs.running, ended, away, poisoned, late, silent, flaky, without_slurmdbd, frozen
    )


def start(installed: Installation) -> None:
    """Without a week of accounting to be read first, which takes the machine from the other tests."""
    installed.touch_last_run()
    installed.start()


class CcBackendTroubles:
    """They begin when this is made, all at once, and end one after the other."""

    def __init__(self, jobs: Jobs, installed: dict[str, Installation]) -> None:
        self._jobs = jobs
        self._installed = installed
        installed[HOOKED].server.stop()
        self._silence = installed[SILENT].backend.add_fault(NoAnswer())
        self._faults = [installed[FLAKY].backend.add_fault(fault) for fault in half_of_all_requests()]
        self._began = time.monotonic()
        self._over: list[int] = []
        """The jobs that all troubles see."""

    def submit(self) -> tuple[list[int], list[int]]:
        """The brief jobs, which are over then, and the batch; with the poison before all of them."""
        (self._poison,) = self._jobs.submit(POISON)
        self._refusal = self._installed[POISONED].backend.add_fault(refused_jobs([self._poison]))
        self._installed[POISONED].lab.output("scontrol", "release", str(self._poison))
        self._jobs.note([self._poison])
        with one_burst():
            brief = self._jobs.submit(*[BRIEF] * 4)
            wait_until_ended(self._installed[HOOKED].lab, brief)
        batch = self._jobs.submit(*BATCH)
        self._over = [*brief, *batch]
        return brief, batch

    def _wait_until(self, seconds: float) -> None:
        """So long after the beginning."""
        time.sleep(max(self._began + seconds - time.monotonic(), 0))

    def come_back(self) -> Away:
        self._jobs.wait_until_forgotten(self._over)
        self._wait_until(AWAY_SECONDS)
        installed = self._installed[HOOKED]
        installed.server.start()
        away = Away(time.monotonic() - self._began, time.time())
        with contextlib.suppress(AssertionError):
            installed.wait_for_stops(self._over, seconds=60)
        return away

    def come_late(self) -> Late:
        """cc-backend was not there when the daemon was started."""
        self._wait_until(LATE_SECONDS)
        installed = self._installed[LATE]
        survived, rows = installed.running, len(installed.backend.rows)
        ran = list(self._jobs.running)
        installed.server.start()
        with contextlib.suppress(AssertionError):
            installed.wait_for_starts(ran, seconds=60)
        return Late(survived, rows, ran)

    def end_flakiness(self) -> Flaky:
        self._jobs.wait_until_over(self._over)
        self._wait_until(FLAKY_SECONDS)
        backend = self._installed[FLAKY].backend
        for fault in self._faults:
            backend.remove_fault(fault)
        statuses = [request.status for request in backend.log]
        return Flaky(len(statuses), sum(status in (None, 500, 502) for status in statuses))

    def end_silence(self) -> Silent:
        """What was sent before is never answered, what comes from then on is."""
        self._jobs.wait_until_over(self._over)
        self._wait_until(SILENT_SECONDS)
        installed = self._installed[SILENT]
        stopped = installed.stopped()
        self._silence.count = 0
        returned = time.monotonic()
        installed.backend.wait_for(lambda: installed.stopped() >= set(self._over), PATIENCE * 90)
        waited = time.monotonic() - returned
        silence = installed.backend.add_fault(NoAnswer(START_PATH, count=1000))
        (job_id,) = self._jobs.submit(AFTER_SILENCE)
        self._jobs.note([job_id])
        installed.backend.wait_for(lambda: silence.count != 1000, PATIENCE * 30)
        sigterm = installed.stop()
        installed.start()
        installed.backend.remove_fault(silence)  # cc-backend stores what it was sent, and nobody takes its answer
        return Silent(stopped, waited, sigterm, job_id)

    def refuse_poison(self) -> Poisoned:
        installed = self._installed[POISONED]
        beside_it = self._jobs.submit(*[BESIDE_IT] * BESIDE_IT_TIMES)
        self._jobs.note(beside_it)
        with contextlib.suppress(AssertionError):
            installed.wait_for_starts(beside_it, seconds=30)
        rows = len(installed.backend.rows_of(self._poison))
        installed.backend.remove_fault(self._refusal)
        os.kill(installed.pid, signal.SIGHUP)
        with contextlib.suppress(AssertionError):
            installed.wait_for_starts([self._poison], seconds=30)
        cancel(installed.lab, [self._poison])
        return Poisoned(self._poison, beside_it, rows)


def half_of_all_requests() -> list[Any]:
    """Four faults that together hit half of all requests, by chance."""
    each: dict[str, Any] = {"fraction": 1 - 0.5**0.25}
    return [
        OtherAnswer(**each, seed=1, status=500),
        OtherAnswer(**each, seed=2, status=502),
        Dropped(**each, seed=3),
        LostAnswer(**each, seed=4),
    ]
