"""The sync that somebody has asked for, as an activity of the main loop: a step at a time, beside everything else."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator

from cc_slurm_adapter.errors import UnderWay
from cc_slurm_adapter.jobs.report import COMPLETE, STOPPED, SyncReport, SyncRequest
from cc_slurm_adapter.jobs.sync import MAX_PENDING, Sync, Syncs
from cc_slurm_adapter.log import NOTICE
from cc_slurm_adapter.system import backoff
from cc_slurm_adapter.system.backoff import RetriedStep
from cc_slurm_adapter.system.outages import Outages
from cc_slurm_adapter.system.quantities import counted, full_moment

log = logging.getLogger(__name__)

NO_ACCOUNTING = "Slurm keeps no accounting here (slurmdbd): only a job that slurmctld knows can be synced, with -job"
LONGEST_REST = 60.0
"""The most seconds that slurmdbd rests between two hours of accounting. It rests as long as the last one took."""
ROOM_WAIT = 1.0
"""Seconds until it is seen again whether fewer messages wait."""


class Syncing:
    """One sync at a time. The main thread runs it; the thread of the control socket calls `accept`."""

    def __init__(
        self, syncs: Syncs, *, timing: backoff.Timing = backoff.TIMING, outages: Outages | None = None
    ) -> None:
        self._syncs = syncs
        self._clock = timing.clock
        self._timing = timing
        self._outages = outages
        self._step = self._new_step()
        self._sync: Sync | None = None
        self._steps: Generator[bool, None, None] | None = None
        self._is_between = True
        """Whether no query is under way."""
        self._busy = 0.0
        """Seconds that the hour under way has taken until now."""
        self._not_before = 0.0
        self.report = SyncReport()
        """Replaced as a whole, so any thread may read it. While none is under way only `accept` replaces it."""

    def _new_step(self) -> RetriedStep:
        return RetriedStep("the sync of accounting", timing=self._timing, outages=self._outages)

    def accept(self, wanted: SyncRequest) -> SyncReport:
        """Accept a request, whose `begin` follows from the main thread. Raises UnderWay if there is one."""
        if self.report.is_under_way:
            raise UnderWay(
                f"a sync is under way ({describe(self.report)}): wait for its end, which -status shows, or stop it"
                " (Ctrl-C where it was typed, POST /sync/stop)"
            )
        self.report = SyncReport(time.time(), **wanted._asdict(), reached=wanted.since)
        return self.report

    @property
    def is_reading(self) -> bool:
        """Whether a query to accounting is under way, which waits meanwhile."""
        return self._steps is not None and not self._is_between

    def begin(self, wanted: SyncRequest) -> None:
        """Begin with what was accepted."""
        self._step = self._new_step()
        self._sync = self._syncs.begin(wanted)
        self._busy = self._not_before = 0.0

    def stop(self) -> None:
        """End it; what it has brought stays."""
        if self._sync is not None:
            self._finish(STOPPED)

    def next_due(self) -> float | None:
        """Return when the next step is due, by the clock; None while there is no sync."""
        return None if self._sync is None else max(self._not_before, self._step.not_before)

    def attempt_step(self) -> None:
        """Read the next step, if it is due."""
        sync, due = self._sync, self.next_due()
        if sync is None or due is None or self._clock() < due:
            return
        self._step.attempt(lambda: self._read_step(sync))
        if self._sync is not None:
            self._publish(sync)

    def _read_step(self, sync: Sync) -> bool:
        """Read the next step. Return whether an hour is complete. After an error the hour is read again."""
        if not sync.has_room():
            self._close()
            self._not_before = self._clock() + ROOM_WAIT
            self.report = self.report._replace(waits_for=f"more than {MAX_PENDING:,} messages wait to be delivered")
            return False
        self.report = self.report._replace(waits_for="")
        steps = self._steps or sync.steps()
        self._steps = None
        began = self._clock()
        for is_between in steps:
            self._steps, self._is_between = steps, is_between
            self._busy += self._clock() - began
            if is_between:
                self._not_before = self._clock() + min(self._busy, LONGEST_REST)
                self._busy = 0.0
            return is_between
        self._publish(sync)
        self._finish(COMPLETE)
        return True

    def _publish(self, sync: Sync) -> None:
        counts, step = sync.counts, self._step.report
        self.report = self.report._replace(
            reached=sync.reached,
            found=counts.found,
            unread=counts.unread,
            enqueued=sync.enqueued,
            failing_since=step.failing_since,
            why=step.why,
        )

    def _finish(self, result: str) -> None:
        self._close()
        self._sync = None
        self.report = self.report._replace(ended=time.time(), result=result, waits_for="", failing_since=0.0, why="")
        log.log(NOTICE, "sync %s: %s", result, describe(self.report))

    def _close(self) -> None:
        """End the query under way."""
        steps, self._steps = self._steps, None
        self._busy = 0.0
        if steps is not None:
            steps.close()


def subject(wanted: SyncRequest | SyncReport) -> str:
    """Return what a sync is about."""
    span = f"what ended from {full_moment(wanted.since)} to {full_moment(wanted.until)}"
    return f"job {wanted.job}" if wanted.job else span


def describe(report: SyncReport) -> str:
    """Return what a sync is about and how far it is."""
    is_partly_read = not report.job and report.since < report.reached < report.until
    reached = f", read until {full_moment(report.reached)}" if is_partly_read else ""
    unread = f", {counted(report.unread, 'run')} could not be read" if report.unread else ""
    return f"{subject(report)}{reached}: {counted(report.found, 'run')}, {report.enqueued:,} not known before{unread}"
