"""How runs came to their end that slurmctld shows no more, or whose job it shows with another run.

Accounting tells; at a site without slurmdbd there is only slurmctld's word. What ended before the first moment and was
not known then is history: it is not started. Of runs that Slurm has lost nobody tells: see `lost_runs`.

A query that failed ends the step with a SlurmError; nothing is concluded from the failure.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from cc_slurm_adapter.errors import CommandCancelled, SlurmError, StateError
from cc_slurm_adapter.jobs.accounting_windows import AccountingWindows
from cc_slurm_adapter.jobs.decisions import (
    forgotten_end,
    never_launched,
    requeued_end,
    rests_of_resized,
    went_back,
    with_ends,
)
from cc_slurm_adapter.jobs.first_moment import FirstMoment
from cc_slurm_adapter.jobs.lost_runs import LostRuns
from cc_slurm_adapter.jobs.recorder import Recorder
from cc_slurm_adapter.log import Progress
from cc_slurm_adapter.model import AccountedEnd, Details, End, Run, RunKey
from cc_slurm_adapter.outbox.outbox import Batch, OpenRun, Outbox, Stage
from cc_slurm_adapter.slurm.interface import Slurm, ask_slurmctld

log = logging.getLogger(__name__)

MAX_UNRESOLVED = 10_000
MAX_PENDING = 20_000
"""Messages that wait to be delivered and are not parked: above that accounting is not read on. What is parked may be so
for weeks, and would keep all others from being read for so long."""
FIRST_WAIT, LONGEST_WAIT = 30, 3600
"""Seconds until it is looked why accounting tells no end of a run, and between two such looks at most."""
UNTOLD_AT_ONCE = 200
"""Runs that are looked at so in one catch-up, those that have waited longest first."""


class _Wait(NamedTuple):
    """Until a Unix time, for so many seconds."""

    until: float
    seconds: float

    def is_over(self, now: float) -> bool:
        """Also when the clock was set back."""
        return not self.until - self.seconds <= now < self.until

    def longer(self, now: float) -> _Wait:
        """The next one."""
        seconds = min(2 * self.seconds, LONGEST_WAIT)
        return _Wait(now + seconds, seconds)


class Endings:
    """Of the runs of one cluster. `take_details` takes some runs with their details, as a pass does."""

    def __init__(  # noqa: PLR0913 - the parts it needs
        self,
        slurm: Slurm,
        outbox: Outbox,
        recorder: Recorder,
        take_details: Callable[[Details, Sequence[Run]], None],
        clock: Callable[[], float],
        max_span: int,
        first_moment: FirstMoment,
        *,
        has_accounting: bool,
        records_steps: bool,
    ) -> None:
        """`records_steps`: accounting knows what was launched."""
        self._slurm = slurm
        self._outbox = outbox
        self._recorder = recorder
        self._open = recorder.open
        self._take_details = take_details
        self._clock = clock
        self._max_span = max_span
        self._has_accounting = has_accounting
        self._records_steps = records_steps
        self._first_moment = first_moment
        self._lost = LostRuns(slurm, recorder, self.ask_for, clock)
        self._windows = AccountingWindows(max_span, int(clock()))
        self._unresolved: set[RunKey] = set()
        """Runs of which nobody tells more than their end: said once."""
        self._waits: dict[RunKey, _Wait] = {}
        """Vanished runs, each with the time at which it is asked for again."""

    def catch_up(self, since: int, vanished: Mapping[RunKey, int]) -> Iterator[int]:
        """Read accounting from `since` until now, an hour at a time, and move the checkpoint. Raises SlurmError.

        `vanished` are open runs that the last listing did not have, with the times at which they were seen last: those
        of which it is time again are asked for first.
        All in Unix seconds; yields how far it has come, also when some runs of an hour were taken.
        """
        now = int(self._clock())
        self._first_moment.keep()
        if not self._has_accounting:
            self._settle_without_accounting(vanished)
            self._recorder.commit(Batch(checkpoint=now))
            return
        self._recorder.late_runs.looks(since, now)
        new, overdue = self._due([key for key in vanished if key in self._open])
        failure = None
        try:
            for _ in self.ask_for(new + overdue):
                yield since
        except CommandCancelled:
            raise
        except SlurmError as error:  # raised at the end: the windows may be read all the same
            failure = error
        windows = self._windows.next(since, now, self._first_moment.limit(now))
        progress = Progress("catching up with accounting, hours", len(windows))
        reached = since
        for number, window in enumerate(windows):
            progress.say(number)
            with contextlib.closing(self._slurm.ended_between(window.start, window.until)) as pieces:
                for ended in pieces:
                    self._demand_room()
                    self._take_ended(ended)
                    yield reached
            self._windows.was_read(window)
            if not window.is_audit:
                reached = window.until
                self._recorder.commit(Batch(checkpoint=reached))
            yield reached
        self._recorder.late_runs.say()
        if failure is not None:
            raise failure
        for _ in self._end_untold(overdue, vanished):
            yield reached

    def _demand_room(self) -> None:
        """What accounting has ended stays there for long: nothing is gained by holding it in the state file."""
        try:
            are_too_many = self._outbox.has_waiting(more_than=MAX_PENDING)
        except StateError:
            return  # whether it can be written shows then
        if are_too_many:
            text = f"more than {MAX_PENDING} messages wait to be delivered: accounting is read on when they are fewer"
            raise StateError(text)

    def _due(self, vanished: Sequence[RunKey]) -> tuple[list[RunKey], list[RunKey]]:
        """Runs to be asked for: those that have just vanished, and those that are asked for again, ever more seldom."""
        now = self._clock()
        new = [key for key in vanished if key not in self._waits]
        overdue = [key for key in vanished if key in self._waits and self._waits[key].is_over(now)]
        overdue = sorted(overdue, key=lambda key: self._waits[key].until)[:UNTOLD_AT_ONCE]
        self._waits = {key: self._waits.get(key) or _Wait(now + FIRST_WAIT, FIRST_WAIT) for key in vanished}
        self._waits.update({key: self._waits[key].longer(now) for key in overdue})
        return new, overdue

    def _settle_without_accounting(self, vanished: Iterable[RunKey]) -> None:
        """Runs that slurmctld no longer lists, at a site without slurmdbd: only slurmctld can say what became of them.

        Raises SlurmError.
        """
        gone = [key for key in vanished if self._is_on_nodes(key)]
        current, forgotten = ask_slurmctld(self._slurm, {key.job_id for key in gone})
        ends = self._ends_of_requeued(gone, current)
        for key in gone:
            if key not in ends and key.job_id in forgotten:
                log.warning("%s is over, but nobody knows since when and how: taken as failed now", key)
                ends[key] = forgotten_end(int(self._clock()))
        self._recorder.end(ends)

    def ask_for(self, keys: Sequence[RunKey]) -> Iterator[None]:
        """Open runs that slurmctld has forgotten, or whose job has another run now; yields between its questions.

        Raises SlurmError.
        """
        if not keys:
            return
        oldest = min(key.start_time for key in keys)
        for ended in self._slurm.ends_of({key.job_id for key in keys}, oldest, int(self._clock())):
            self._take_ended([each for each in ended if each.key in self._open])
            yield

    def _end_untold(self, overdue: Iterable[RunKey], last_seen: Mapping[RunKey, int]) -> Iterator[None]:
        """Runs that have no end in accounting: their job was requeued, or Slurm has lost them. Raises SlurmError."""
        left = [key for key in overdue if self._is_on_nodes(key)]
        if not left:
            return
        yield from self._end_if_requeued(left)
        yield from self._lost.look_at({key: last_seen[key] for key in left if key in self._open})

    def _end_if_requeued(self, overdue: Sequence[RunKey]) -> Iterator[None]:
        """Runs that have no end in accounting, which knows a later run of their job: so they were requeued.

        22.05 may have such records of jobs that are requeued right after their start. Raises SlurmError.
        """
        details = self._slurm.read_details({key.job_id for key in overdue})
        later = {run.key.job_id: run for some in details for run in some.runs}
        requeued = self._ends_of_requeued(overdue, later)
        yield
        now = int(self._clock())
        jobs, oldest = {key.job_id for key in requeued}, min(key.start_time for key in overdue)
        for accounted in self._slurm.read_accounted(jobs, oldest, now) if jobs else ():
            known = {run.key.job_id for run in accounted.runs if run.submit_time >= later[run.key.job_id].submit_time}
            self._end_requeued({key: end for key, end in requeued.items() if key.job_id in known})
            yield

    def _end_requeued(self, ends: Mapping[RunKey, End]) -> None:
        live = {key: end for key, end in ends.items() if self._open.stage(key) is Stage.STARTED}
        self._recorder.end({key: end for key, end in ends.items() if self._is_on_nodes(key)})
        for key, end in live.items():
            log.warning("%s was requeued at %d: accounting knows a later run and no end of it", key, end.end_time)

    def _ends_of_requeued(self, keys: Iterable[RunKey], current: Mapping[int, Run]) -> dict[RunKey, End]:
        """Those of the runs that slurmctld's current run of the same job has replaced."""
        ends = {}
        for key in keys:
            starts = [known.key.start_time for known in self._open.of_job(key.job_id)]
            end = requeued_end(key, current.get(key.job_id), starts)
            if end is not None:
                ends[key] = end
        return ends

    def _is_on_nodes(self, key: RunKey) -> bool:
        return key in self._open and not self._is_seen(key)

    def _take_ended(self, ended: list[AccountedEnd]) -> None:
        """Runs that accounting has closed: live ones get their stop, the others start and stop together.

        Nearly all are done already: for those a look into the outbox is all.
        """
        for each in ended:
            self._lost.note_end(each.end.end_time)
        first_moment = self._first_moment.limit(self._clock())
        strangers = self._strangers(each.key for each in ended if each.end.end_time >= first_moment)
        news = [each for each in ended if each.key in self._open or each.key in strangers]
        ends = {each.key: each.end for each in self._whole(news, strangers)}
        strangers = self._strangers(ends)
        # First what needs no further question, which may fail.
        self._recorder.end({key: self._lost.end_of(key, end) for key, end in ends.items() if self._is_on_nodes(key)})
        self._take_late({key: end for key, end in ends.items() if key in strangers or self._is_seen(key)})

    def _strangers(self, keys: Iterable[RunKey]) -> set[RunKey]:
        return set(self._outbox.unknown(key for key in keys if key not in self._open))

    def _whole(self, ended: list[AccountedEnd], strangers: set[RunKey]) -> list[AccountedEnd]:
        """The same ends, where what may be the rest of a resized run is known for what it is.

        Accounting closes the record of a resized run and goes on with another one, often out of this window.
        """
        doubtful = [each for each in ended if each.may_be_rest and each.key in strangers]
        if not doubtful:
            return ended
        now = int(self._clock())
        jobs = {each.key.job_id for each in doubtful}
        begun = [run.key.start_time for job_id in jobs for run in self._open.of_job(job_id)]
        oldest = min(now - self._max_span, *begun, *(each.key.start_time for each in doubtful))
        whole = [each for some in self._slurm.ends_of(jobs, oldest, now) for each in some]
        rests = rests_of_resized(doubtful, whole)
        self._recorder.commit(Batch(runs={key: OpenRun(key, Stage.DONE, "", None) for key in rests}))
        left_out = {each.key for each in doubtful} - {each.key for each in whole}
        if left_out != rests:
            log.warning("accounting tells %d runs only once: they are left for later", len(left_out - rests))
        resized = [each for each in whole if each.key.job_id in {key.job_id for key in rests}]
        return [each for each in ended if each.key not in left_out] + resized

    def _is_seen(self, key: RunKey) -> bool:
        return self._open.stage(key) is Stage.PREPARING

    def _take_late(self, ends: Mapping[RunKey, End]) -> None:
        """Runs that ended before their start was owed: with the best resources that can still be had."""
        if not ends:
            return
        current: list[Run] = []
        waiting: set[RunKey] = set()
        for details in self._slurm.read_details({key.job_id for key in ends}):
            current += details.runs
            self._take_details(details, [run for run in details.runs if run.key in ends and run.end])
            waiting |= {run.key for run in details.runs if run.awaits_layout}
            waiting |= {key for key in ends if key.job_id in details.failed}
        left = self._unreported(ends) - waiting
        if left:
            since = min(key.start_time for key in left)
            late = self._slurm.read_accounted({key.job_id for key in left}, since, int(self._clock()))
            for details in late:
                runs = with_ends(details.runs, {key: ends[key] for key in left})
                requeued = [run for run in runs if went_back(run, [*details.runs, *current])]
                idle = self._leave_out_idle(requeued)
                self._take_details(details, [run for run in runs if run.key not in idle])
            unresolved = self._unreported(left)
            for key in unresolved - self._unresolved:
                log.error("%s is over, but neither slurmctld nor accounting tells more: they are asked again", key)
            kept = self._unresolved if len(self._unresolved) < MAX_UNRESOLVED else set()
            self._unresolved = kept - left | unresolved

    def _leave_out_idle(self, requeued: list[Run]) -> set[RunKey]:
        """Those of the requeued runs that never launched anything: for cc-backend they would stand for the real run."""
        if not requeued or not self._records_steps:
            return set()
        jobs = {job_id for run in requeued for job_id in (run.key.job_id, run.het_job_id) if job_id}
        since = min(run.key.start_time for run in requeued)
        launches = [each for some in self._slurm.launches_of(jobs, since, int(self._clock())) for each in some]
        idle = {run.key: run.end for run in never_launched(requeued, launches) if run.end}
        self._recorder.leave_out_idle(idle)
        return set(idle)

    def _unreported(self, keys: Iterable[RunKey]) -> set[RunKey]:
        return {key for key in keys if key in self._open or self._outbox.unknown([key])}
