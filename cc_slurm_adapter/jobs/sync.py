"""Brings what accounting has of a span of time, or of one job, because somebody asked for it.

It reads what ended before the first moment, too, and is not limited by slurmQueryMaxSpan. It is gentle to slurmdbd: an
hour in one query, the oldest first, one query at a time; whoever runs it lets slurmdbd rest between two hours. Runs
that are known are left alone. So a sync that was interrupted is taken up by asking for it again: what it brought before
is only looked up in the state file, and is not reported twice.

It has its own recorder, because it may record what the daemon may not, but shares the runs: an open run is one run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import NamedTuple

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.jobs.accounted_runs import AccountedRuns
from cc_slurm_adapter.jobs.accounting_windows import WINDOW
from cc_slurm_adapter.jobs.first_moment import FirstMoment
from cc_slurm_adapter.jobs.lost_runs import LostRuns
from cc_slurm_adapter.jobs.recorder import Recorder
from cc_slurm_adapter.jobs.report import SyncRequest
from cc_slurm_adapter.jobs.run_store import RunStore
from cc_slurm_adapter.jobs.settings import WatchSettings
from cc_slurm_adapter.model import AccountedEnd, Run, RunKey
from cc_slurm_adapter.slurm.interface import Slurm

MAX_PENDING = 5_000
"""With more pending messages a sync reads nothing. That is far less than `catch_up.MAX_PENDING`, so a sync never keeps
the daemon from reading accounting, and new messages wait for those of a sync only for seconds."""


class Counts(NamedTuple):
    """How many runs there were."""

    found: int = 0
    """That accounting has."""
    unread: int = 0
    """That were not known and are not known now, because they could not be read."""


class Sync:
    """One sync. What it has done so far is in its attributes."""

    def __init__(
        self, slurm: Slurm, store: RunStore, counters: Counters, settings: WatchSettings, wanted: SyncRequest
    ) -> None:
        span = max(settings.now() - wanted.since, 0) + settings.max_span
        own = replace(settings, max_span=span, first_moment=FirstMoment.at(0), on_start=self._count_start)
        self._slurm = slurm
        self._store = store
        self._settings = own
        self._recorder = Recorder(slurm, store, counters, own)
        self._accounted = AccountedRuns(slurm, store, self._recorder, LostRuns(slurm, store, own), own)
        self._wanted = wanted
        self.reached = wanted.since
        """Unix time up to which everything was read."""
        self.enqueued = 0
        """How many runs are reported because of it."""
        self._before, self._window = Counts(), Counts()
        """In the windows that were read, and in that which is being read."""

    @property
    def counts(self) -> Counts:
        """What it has found so far."""
        return Counts(self._before.found + self._window.found, self._before.unread + self._window.unread)

    def has_room(self) -> bool:
        """Return whether so few messages wait that more may be read. Raises StateError."""
        return not self._store.has_pending(more_than=MAX_PENDING)

    def steps(self) -> Generator[bool, None, None]:
        """Read what is left. Yields between its queries: True when no query is under way. Raises SlurmError.

        After an error, or when it was closed, it begins anew with the hour that was not complete.
        """
        self._window = Counts()
        if self._wanted.job:
            yield from self._read_job()
        while not self._wanted.job and self.reached < self._wanted.until:
            until = min(self.reached + WINDOW, self._wanted.until)
            with contextlib.closing(self._slurm.ended_between(self.reached, until)) as pieces:
                for ended in pieces:
                    self._record(ended, until)
                    yield False
            self._window_is_read(until)
            yield True

    def _read_job(self) -> Iterator[bool]:
        """Read one job: what slurmctld has, which may be more, and then accounting."""
        job_id, until = self._wanted.job, self._wanted.until
        found: set[RunKey] = set()
        with self._settings.late_runs.ignored():
            for details in self._slurm.read_details([job_id]):
                self._recorder.record(details, details.runs, urgent=True)
                found |= {run.key for run in details.runs}
        self._window = Counts(len(found))
        yield False
        if self._settings.has_accounting:
            for ended in self._slurm.ends_of([job_id], self._wanted.since, until):
                self._record(ended, until)
                found |= {each.key for each in ended}
                self._window = self._window._replace(found=len(found))
                yield False
        self._window_is_read(until)

    def _window_is_read(self, until: int) -> None:
        self.reached, self._before, self._window = until, self.counts, Counts()

    def _record(self, ended: list[AccountedEnd], until: int) -> None:
        """Record some runs of a window. One that ended at its last second is in the next window, too."""
        before = self._store.unknown(each.key for each in ended if each.key not in self._store.open_runs)
        with self._settings.late_runs.ignored():
            self._accounted.record(ended)
        unread = len(self._store.unknown(before)) if before else 0
        is_last = until == self._wanted.until
        found = sum(is_last or each.end.end_time < until for each in ended)
        self._window = Counts(self._window.found + found, self._window.unread + unread)

    def _count_start(self, run: Run) -> None:
        self.enqueued += 1


class Syncs:
    """Begins syncs of one cluster."""

    def __init__(self, slurm: Slurm, store: RunStore, counters: Counters, settings: WatchSettings) -> None:
        self._parts = slurm, store, counters, settings

    def begin(self, wanted: SyncRequest) -> Sync:
        """Return a sync that has read nothing yet."""
        return Sync(*self._parts, wanted)
