"""Runs that ended before they were seen, so that their cores or GPUs could not be read any more: which, and why.

The log names them when a destination has accepted their starts as new. Mostly it knows them already, from another
program or from before the state was lost. Runs that wait for an answer are not remembered across a restart. But each
run is also logged, at INFO, when it is recorded.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from cc_slurm_adapter.model import RunKey, job_list
from cc_slurm_adapter.system.quantities import counted, full_moment

log = logging.getLogger(__name__)

GAP = 300
"""Seconds without a complete poll that count as an absence."""
AT_MOST_EVERY = 3600.0
"""Seconds between two lines about runs that were simply too short."""
MAX_WAITING = 10_000
"""The most runs that are remembered while their starts are on their way. Others are only logged one by one."""


class Absence(NamedTuple):
    """A time in which the jobs were not watched, in Unix seconds."""

    since: int
    until: int


class LateRuns:
    """The runs that were seen too late, until they are logged. Used from every thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._absence: Absence | None = None
        self._waiting: dict[RunKey, Absence | None] = {}
        self._accepted: dict[Absence | None, list[RunKey]] = {}
        self._clock = clock
        self._ignores = False
        self._next_line = float("-inf")
        """When runs that are shorter than a poll interval are logged again: there may be some at every poll."""

    def set_absence(self, since: int, now: int) -> None:
        """Record that what is found from now on is from the time between `since` and `now` (Unix seconds)."""
        self._absence = Absence(since, now) if now - since > GAP else None

    @contextlib.contextmanager
    def ignored(self) -> Iterator[None]:
        """Return a context in which no run is remembered: somebody asks for old runs, and knows that they are."""
        self._ignores = True
        try:
            yield
        finally:
            self._ignores = False

    def found(self, key: RunKey) -> None:
        """Record that the start of this run is pending, and incomplete. Only the main thread calls it."""
        with self._lock:
            if len(self._waiting) < MAX_WAITING and not self._ignores:
                self._waiting[key] = self._absence

    def start_delivered(self, key: RunKey, *, is_new: bool) -> None:
        """Record that a destination has the start of a run. `is_new` says that it did not know the run before."""
        with self._lock:
            if key in self._waiting:
                absence = self._waiting.pop(key)
                keys = self._accepted.setdefault(absence, []) if is_new else []
                if is_new and len(keys) < MAX_WAITING:
                    keys.append(key)

    def report(self) -> None:
        """Log one line for each reason, about the runs that were accepted since the last such line.

        Runs without an absence are logged at most once an hour.
        """
        now = self._clock()
        with self._lock:
            accepted, self._accepted = self._accepted, {}
            if None in accepted and now < self._next_line:
                self._accepted[None] = accepted.pop(None)
            elif None in accepted:
                self._next_line = now + AT_MOST_EVERY
        for absence, keys in accepted.items():
            if absence:
                away = f"away from {full_moment(absence.since)} to {full_moment(absence.until)}"
            else:
                away = "they were shorter than a poll interval, and no hook reported them in time"
            first = min(keys, key=lambda key: (key.start_time, key.job_id))
            log.warning(
                "%s ended before being seen, and reported without all cores or GPUs (the first, of"
                " job %d, began %s, the last %s; %s): jobs %s",
                counted(len(keys), "run"),
                first.job_id,
                full_moment(first.start_time),
                full_moment(max(key.start_time for key in keys)),
                away,
                job_list(keys),
            )
