"""Jobs for which Slurm's own command fails. They are queried again, but less and less often."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from cc_slurm_adapter.log import NOTICE
from cc_slurm_adapter.system.grouped_lines import GroupedLines
from cc_slurm_adapter.system.outages import kind_of

log = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 2.0, 3600.0
"""Seconds until a job is queried again. One failure may be chance."""
LONGEST_FIRST_WAIT = 120.0
"""Seconds to wait at most after the first failure, however long the query took."""
LOGGED_FROM = 8.0
"""A wait of at least this many seconds is logged as an error; shorter ones are not."""
NO_HOPE = 480.0
"""With a wait of this many seconds the job has failed for at least six minutes. If it has ended, slurmctld has usually
forgotten it by then (MinJobAge is 300 s by default), and what accounting has must be enough."""
MAX_JOBS = 1000
"""Most jobs that are remembered. If there are more, the oldest is queried again immediately."""


class Timing(NamedTuple):
    """How long a failed query is not repeated, beside FIRST_WAIT and LONGEST_WAIT."""

    wait_per_second: float = 10.0
    """Seconds to wait for each second that the failed query took."""


TIMING = Timing()


class _Wait(NamedTuple):
    """time.monotonic() of the next try, and the seconds waited for that."""

    until: float
    seconds: float


class PostponedJobs:
    """The jobs whose queries wait. One thread uses it. A job that ends meanwhile is found through accounting."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, timing: Timing = TIMING) -> None:
        self._clock = clock
        self._timing = timing
        self._waits: dict[int, _Wait] = {}
        self._lines = GroupedLines(log, clock)

    def due(self, job_ids: Iterable[int]) -> list[int]:
        """Return the jobs that may be queried now."""
        self._lines.report_due()
        if not self._waits:
            return list(job_ids)
        now = self._clock()
        return [job_id for job_id in job_ids if job_id not in self._waits or now >= self._waits[job_id].until]

    def with_hope(self, job_ids: Iterable[int]) -> list[int]:
        """Return the jobs that are postponed with a wait shorter than NO_HOPE."""
        return [job_id for job_id in job_ids if job_id in self._waits and self._waits[job_id].seconds < NO_HOPE]

    def failed(self, job_id: int, reason: str, elapsed: float = 0.0) -> None:
        """Postpone a job for which Slurm's command failed, alone and after `elapsed` seconds."""
        known = self._waits.pop(job_id, None)
        before = known.seconds if known else 0.0
        for_query = min(self._timing.wait_per_second * elapsed, LONGEST_FIRST_WAIT)
        seconds = min(max(2 * before, FIRST_WAIT, for_query), LONGEST_WAIT)
        while len(self._waits) >= MAX_JOBS:
            del self._waits[next(iter(self._waits))]
        self._waits[job_id] = _Wait(self._clock() + seconds, seconds)
        if before < LOGGED_FROM <= seconds:
            self._log_failure(job_id, reason, seconds)

    def _log_failure(self, job_id: int, reason: str, seconds: float) -> None:
        what = "Slurm's own command fails for it, the other jobs go on"
        line = (
            f"job {job_id}: {what}: {reason}. It is asked for again in {seconds:.0f} s and then less and less often;"
            f" `scontrol show job {job_id}` by hand may show why"
        )
        self._lines.report(what, kind_of(reason), line, lambda: f"more jobs, the first is {line}", level=logging.ERROR)

    def retry_all(self) -> None:
        """Make all postponed jobs due immediately."""
        self._waits = {job_id: wait._replace(until=0.0) for job_id, wait in self._waits.items()}

    def succeeded(self, job_ids: Iterable[int]) -> None:
        """Forget these jobs, because their query had a result."""
        for job_id in job_ids if self._waits else ():
            known = self._waits.pop(job_id, None)
            if known and known.seconds >= LOGGED_FROM:
                self._log_success(job_id)

    def _log_success(self, job_id: int) -> None:
        what = "can be asked for again"
        self._lines.report(
            what, "", f"job {job_id} {what}", lambda: f"more jobs {what}, job {job_id} first", level=NOTICE
        )
