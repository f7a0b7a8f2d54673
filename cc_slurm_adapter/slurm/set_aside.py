"""Jobs that Slurm cannot be asked for, since its own command fails for them: asked for again, but ever more seldom."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from cc_slurm_adapter.log import NOTICE

log = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 2.0, 3600.0
"""Seconds until a job is asked for again; once may be chance."""
TIMES_AS_LONG, AT_FIRST = 10, 120.0
"""A job is left alone for so many times as long as its question took that failed, at first for this at the longest."""
SAID_FROM = 8.0
"""The wait from which on it is an error in the log."""
NO_HOPE = 480.0
"""A wait that is so long: slurmctld has failed for the job for at least six minutes, and has mostly forgotten an ended
one by then (MinJobAge is 300 s by default). What accounting knows of it has to do."""
MAX_JOBS = 1000
"""Jobs that are remembered; the oldest one is asked for again at once when there are more."""


class _Wait(NamedTuple):
    """time.monotonic() of the next try, and the seconds waited for that."""

    until: float
    seconds: float


class SetAside:
    """Used from one thread. What ends such a job in Slurm ends it here too: accounting tells of that."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waits: dict[int, _Wait] = {}

    def without(self, job_ids: Iterable[int]) -> list[int]:
        """Those of the jobs that may be asked for now."""
        if not self._waits:
            return list(job_ids)
        now = self._clock()
        return [job_id for job_id in job_ids if job_id not in self._waits or now >= self._waits[job_id].until]

    def may_come(self, job_ids: Iterable[int]) -> list[int]:
        """Those of the jobs that are set aside, but not for so long that nothing is to be hoped for."""
        return [job_id for job_id in job_ids if job_id in self._waits and self._waits[job_id].seconds < NO_HOPE]

    def failed(self, job_id: int, reason: str, took: float = 0.0) -> None:
        """Slurm's command failed for this job alone, after so many seconds."""
        known = self._waits.pop(job_id, None)
        before = known.seconds if known else 0.0
        seconds = min(max(2 * before, FIRST_WAIT, min(TIMES_AS_LONG * took, AT_FIRST)), LONGEST_WAIT)
        while len(self._waits) >= MAX_JOBS:
            del self._waits[next(iter(self._waits))]
        self._waits[job_id] = _Wait(self._clock() + seconds, seconds)
        is_new = before < SAID_FROM <= seconds
        level = logging.ERROR if is_new else logging.DEBUG
        text = (
            "job %d: Slurm's own command fails for it, the other jobs go on: %s. It is asked for again in %.0f s and"
            " then ever more seldom; `scontrol show job %d` by hand may show why"
        )
        log.log(level, text, job_id, reason, seconds, job_id)

    def retry_all(self) -> None:
        """Ask for all of them again at once."""
        self._waits = {job_id: wait._replace(until=0.0) for job_id, wait in self._waits.items()}

    def answered(self, job_ids: Iterable[int]) -> None:
        """Slurm was asked for these jobs and answered."""
        for job_id in job_ids if self._waits else ():
            known = self._waits.pop(job_id, None)
            if known and known.seconds >= SAID_FROM:
                log.log(NOTICE, "job %d can be asked for again", job_id)
