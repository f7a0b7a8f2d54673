"""Runs that ended before they were seen, so that their cores or GPUs could not be read any more: which, and why.

The log names them when a destination has accepted their starts as new. Mostly it knows them already, from another
program or from before the state was lost. Runs that wait for an answer are not remembered across a restart. But each
run is also logged, at INFO, when it is recorded.
"""

from __future__ import annotations

import logging
import threading
from typing import NamedTuple

from cc_slurm_adapter.log import moment_text
from cc_slurm_adapter.model import RunKey, job_list

log = logging.getLogger(__name__)

GAP = 300
"""Seconds without a complete poll that count as an absence."""
MAX_WAITING = 10_000
"""The most runs that are remembered while their starts are on their way. Others are only logged one by one."""


class Absence(NamedTuple):
    """A time in which the jobs were not watched, in Unix seconds."""

    since: int
    until: int


class LateRuns:
    """The runs that were seen too late, until they are logged. Used from every thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._absence: Absence | None = None
        self._waiting: dict[RunKey, Absence | None] = {}
        self._accepted: dict[Absence | None, list[RunKey]] = {}

    def set_absence(self, since: int, now: int) -> None:
        """Record that what is found from now on is from the time between `since` and `now` (Unix seconds)."""
        self._absence = Absence(since, now) if now - since > GAP else None

    def found(self, key: RunKey) -> None:
        """Record that the start of this run is pending, and incomplete."""
        with self._lock:
            if len(self._waiting) < MAX_WAITING:
                self._waiting[key] = self._absence

    def start_delivered(self, key: RunKey, *, is_new: bool) -> None:
        """Record that a destination has the start of a run. `is_new` says that it did not know the run before."""
        with self._lock:
            if key in self._waiting:
                absence = self._waiting.pop(key)
                if is_new:
                    self._accepted.setdefault(absence, []).append(key)

    def report(self) -> None:
        """Log one line for each reason, about the runs that were accepted since the last call."""
        with self._lock:
            accepted, self._accepted = self._accepted, {}
        for absence, keys in accepted.items():
            if absence:
                away = f"away from {moment_text(absence.since)} to {moment_text(absence.until)}"
            else:
                away = "they were shorter than a poll interval, and no hook told of them in time"
            first = min(keys, key=lambda key: (key.start_time, key.job_id))
            log.warning(
                "%d runs ended before they were seen, and were reported without all their cores or GPUs (the first, of"
                " job %d, began %s, the last %s; %s): jobs %s",
                len(keys),
                first.job_id,
                moment_text(first.start_time),
                moment_text(max(key.start_time for key in keys)),
                away,
                job_list(keys),
            )
