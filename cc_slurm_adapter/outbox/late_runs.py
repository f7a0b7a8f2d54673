"""Runs that ended before they were seen, so that their cores or GPUs could not be had any more: which, and why.

They are reported when a destination has newly accepted their starts: mostly it knows them already, from another program
or from before the state was lost. What waits for an answer is not remembered over a restart; the log has each run
at INFO when it is written down.
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
"""Runs whose starts are on their way, at most: more are only in the log of single runs."""


class Absence(NamedTuple):
    """Unix seconds between which nobody watched."""

    since: int
    until: int


class LateRuns:
    """Used from every thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._absence: Absence | None = None
        self._waiting: dict[RunKey, Absence | None] = {}
        self._accepted: dict[Absence | None, list[RunKey]] = {}

    def set_absence(self, since: int, now: int) -> None:
        """Note that what is found from now on is of the time from `since` to `now` (Unix seconds)."""
        self._absence = Absence(since, now) if now - since > GAP else None

    def found(self, key: RunKey) -> None:
        """Note that the start of this run is pending, incomplete."""
        with self._lock:
            if len(self._waiting) < MAX_WAITING:
                self._waiting[key] = self._absence

    def start_delivered(self, key: RunKey, *, is_new: bool) -> None:
        """Note that a destination has the start of any run; `is_new`: it had not known it."""
        with self._lock:
            if key in self._waiting:
                absence = self._waiting.pop(key)
                if is_new:
                    self._accepted.setdefault(absence, []).append(key)

    def report(self) -> None:
        """Log a line about those that were accepted since the last time, for each reason."""
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
