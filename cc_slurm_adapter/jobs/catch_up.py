"""Reads from accounting how runs ended that slurmctld does not show any more, or whose job it shows with another run.

At a site without slurmdbd, only slurmctld can tell. Runs that Slurm has lost have no end: see `lost_runs`.

A failed query ends the step with a SlurmError, and nothing is concluded from the failure.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from cc_slurm_adapter.errors import CommandCancelled, NoRoom, SlurmError, StateError
from cc_slurm_adapter.jobs.accounted_runs import AccountedRuns
from cc_slurm_adapter.jobs.accounting_windows import AccountingWindows
from cc_slurm_adapter.jobs.decisions import forgotten_end, requeued_end
from cc_slurm_adapter.jobs.lost_runs import LostRuns
from cc_slurm_adapter.jobs.run_store import RunStore
from cc_slurm_adapter.jobs.settings import WatchSettings
from cc_slurm_adapter.log import Progress
from cc_slurm_adapter.model import End, Run, RunKey, job_list
from cc_slurm_adapter.outbox.outbox import Batch, Stage
from cc_slurm_adapter.slurm.interface import Slurm, ask_slurmctld
from cc_slurm_adapter.system.quantities import counted

log = logging.getLogger(__name__)

CATCHING_UP = "catching up with accounting, hours"
"""The name of this work, for the log and the status."""
MAX_PENDING = 20_000
"""The most pending messages with which accounting is read on; it keeps all that it has. Parked ones do not count: they
may wait for weeks, and accounting would not be read all that time. When it has stopped, it is read on with half of
them: then sacct is asked less often for an hour that is not complete."""
FIRST_WAIT, LONGEST_WAIT = 30, 3600
"""Seconds until the first lookup of why accounting has no end of a run, and the most between two such lookups."""
MAX_WITHOUT_END = 200
"""The most runs that are looked up in this way in one catch-up, those that have waited longest first."""


class _Wait(NamedTuple):
    """A wait: the Unix time at which it ends, and how many seconds it lasts."""

    until: float
    seconds: float

    def is_over(self, now: float) -> bool:
        """Return whether it is over. It is over, too, if the clock was set back."""
        return not self.until - self.seconds <= now < self.until

    def longer(self, now: float) -> _Wait:
        """Return the next wait: twice as long, but LONGEST_WAIT at most."""
        seconds = min(2 * self.seconds, LONGEST_WAIT)
        return _Wait(now + seconds, seconds)


class CatchUp:
    """Catches up with the accounting of one cluster, some steps after each poll."""

    def __init__(
        self, slurm: Slurm, store: RunStore, accounted: AccountedRuns, lost: LostRuns, settings: WatchSettings
    ) -> None:
        self._slurm = slurm
        self._store = store
        self._open = store.open_runs
        self._accounted = accounted
        self._lost = lost
        self._settings = settings
        self._windows = AccountingWindows(settings.max_span, settings.now())
        self._waits: dict[RunKey, _Wait] = {}
        """Vanished runs, each with the wait until its next lookup."""
        self._had_no_room = False
        """Whether the last time ended because too many messages waited."""

    def run(self, since: int, vanished: Mapping[RunKey, int]) -> Iterator[int]:
        """Read accounting from `since` until now, an hour at a time, and move the checkpoint. Raises SlurmError.

        `vanished` are the open runs that the last listing did not have, each with the time when it was last seen. Those
        that are due for a lookup are asked for first. Yields the time up to which accounting was read, also when only
        some runs of an hour were recorded. Raises NoRoom while too many messages wait. All times are in Unix seconds.
        """
        now = self._settings.now()
        self._settings.first_moment.keep()
        if not self._settings.has_accounting:
            self._settle_without_accounting(vanished)
            self._store.commit(Batch(checkpoint=now))
            return
        if self._had_no_room:  # before anything is asked: what comes would have to wait, too
            self._require_room(MAX_PENDING // 2)
        self._settings.late_runs.set_absence(since, now)
        new, overdue = self._due([key for key in vanished if key in self._open])
        failure = None
        try:
            for _ in self._accounted.look_up(new + overdue):
                yield since
        except CommandCancelled:
            raise
        except SlurmError as error:  # raised at the end: the windows may be read all the same
            failure = error
        reached = since
        with contextlib.closing(self._read_windows(since, now)) as windows:
            for reached in windows:
                yield reached
        self._settings.late_runs.report()
        if failure is not None:
            raise failure
        for _ in self._end_without_accounted_end(overdue, vanished):
            yield reached

    def _read_windows(self, since: int, now: int) -> Generator[int, None, None]:
        """Record what ended in the hours that are due, and move the checkpoint. Yields how far accounting was read."""
        self._windows.max_span = self._settings.max_span
        first_moment, forgotten_until = self._settings.first_moment.limit(now), self._store.forgotten_until()
        windows = self._windows.next(since, now, first_moment, forgotten_until)
        if windows:
            self._require_room(MAX_PENDING)
        reached = since
        with Progress(CATCHING_UP, len(windows), tell=self._settings.on_work) as progress:
            for number, window in enumerate(windows):
                progress.say(number)
                with contextlib.closing(self._slurm.ended_between(window.start, window.until)) as pieces:
                    for ended in pieces:
                        self._require_room(MAX_PENDING)
                        self._accounted.record(ended)
                        yield reached
                self._windows.was_read(window)
                if not window.is_audit:
                    reached = window.until
                    self._store.commit(Batch(checkpoint=reached))
                yield reached

    def _require_room(self, most: int) -> None:
        """Raise NoRoom while more messages wait: accounting keeps what it has.

        A state file that cannot be read does not raise here.
        """
        try:
            self._had_no_room = self._store.has_pending(more_than=most)
        except StateError:
            return  # the next write shows whether the file can be used
        if self._had_no_room:
            raise NoRoom(f"more than {most} messages wait to be delivered: accounting is read on when they are fewer")

    def _due(self, vanished: Sequence[RunKey]) -> tuple[list[RunKey], list[RunKey]]:
        """Return the runs to ask for: those that have just vanished, and those whose wait for a lookup is over."""
        now = self._settings.clock()
        new = [key for key in vanished if key not in self._waits]
        overdue = [key for key in vanished if key in self._waits and self._waits[key].is_over(now)]
        overdue = sorted(overdue, key=lambda key: self._waits[key].until)[:MAX_WITHOUT_END]
        self._waits = {key: self._waits.get(key) or _Wait(now + FIRST_WAIT, FIRST_WAIT) for key in vanished}
        self._waits.update({key: self._waits[key].longer(now) for key in overdue})
        return new, overdue

    def _settle_without_accounting(self, vanished: Iterable[RunKey]) -> None:
        """End runs that slurmctld does not list any more.

        At a site without slurmdbd only slurmctld can tell how they ended. Raises SlurmError.
        """
        gone = [key for key in vanished if self._open.has_begun(key)]
        current, forgotten = ask_slurmctld(self._slurm, {key.job_id for key in gone})
        ends = self._ends_of_requeued(gone, current)
        unknown = [key for key in gone if key not in ends and key.job_id in forgotten]
        ends.update({key: forgotten_end(self._settings.now()) for key in unknown})
        self._store.end(ends)
        if unknown:
            log.warning(
                "%s over, but Slurm does not know since when and how: reported as failed now. Jobs %s",
                counted(len(unknown), "run is", "runs are"),
                job_list(unknown),
            )

    def _end_without_accounted_end(self, overdue: Iterable[RunKey], last_seen: Mapping[RunKey, int]) -> Iterator[None]:
        """End runs for which accounting has no end, because their job was requeued or Slurm has lost them.

        Yields between its queries. Raises SlurmError.
        """
        left = [key for key in overdue if self._open.has_begun(key)]
        if not left:
            return
        yield from self._end_if_requeued(left)
        left = [key for key in left if key in self._open]
        if left and self._lost.can_be_judged():
            yield
            # Records that waited for slurmdbd have reached it by now.
            yield from self._accounted.look_up(left)
            yield from self._lost.look_up({key: last_seen[key] for key in left})

    def _end_if_requeued(self, overdue: Sequence[RunKey]) -> Iterator[None]:
        """End runs for which accounting has no end but a later run of the same job: so they were requeued.

        Slurm 22.05 may leave such records of jobs that are requeued right after their start. Raises SlurmError.
        """
        details = self._slurm.read_details({key.job_id for key in overdue})
        later = {run.key.job_id: run for some in details for run in some.runs}
        requeued = self._ends_of_requeued(overdue, later)
        yield
        now = self._settings.now()
        jobs, oldest = {key.job_id for key in requeued}, min(key.start_time for key in overdue)
        for accounted in self._slurm.read_accounted(jobs, oldest, now) if jobs else ():
            known = {run.key.job_id for run in accounted.runs if run.submit_time >= later[run.key.job_id].submit_time}
            self._end_requeued({key: end for key, end in requeued.items() if key.job_id in known})
            yield

    def _end_requeued(self, ends: Mapping[RunKey, End]) -> None:
        started = [key for key in ends if self._open.stage(key) is Stage.STARTED]
        self._store.end({key: end for key, end in ends.items() if self._open.has_begun(key)})
        if started:
            log.warning(
                "%s requeued: accounting has a later run of their jobs and no end of them. Jobs %s",
                counted(len(started), "run was", "runs were"),
                job_list(started),
            )

    def _ends_of_requeued(self, keys: Iterable[RunKey], current: Mapping[int, Run]) -> dict[RunKey, End]:
        """Return the ends of those runs that slurmctld's current run of the same job has replaced."""
        ends = {}
        for key in keys:
            starts = [known.key.start_time for known in self._open.of_job(key.job_id)]
            end = requeued_end(key, current.get(key.job_id), starts)
            if end is not None:
                ends[key] = end
        return ends
