"""Records runs that accounting has closed: with their stop, or with start and stop where nobody has seen them before.

A run that ended before the first moment and was not known then is history: it is not started. A query that failed
ends the step with a SlurmError, and nothing is concluded from the failure.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence

from cc_slurm_adapter.jobs.decisions import never_launched, resize_remainders, went_back, with_ends
from cc_slurm_adapter.jobs.lost_runs import LostRuns
from cc_slurm_adapter.jobs.recorder import Recorder
from cc_slurm_adapter.jobs.run_store import RunStore
from cc_slurm_adapter.jobs.settings import WatchSettings
from cc_slurm_adapter.model import AccountedEnd, End, Run, RunKey
from cc_slurm_adapter.outbox.outbox import Batch, OpenRun, Stage
from cc_slurm_adapter.slurm.interface import Slurm

log = logging.getLogger(__name__)

MAX_UNRESOLVED = 10_000
"""Runs that are remembered as logged at most; above that all are logged again."""


class AccountedRuns:
    """Records the ended runs of one cluster."""

    def __init__(
        self, slurm: Slurm, store: RunStore, recorder: Recorder, lost: LostRuns, settings: WatchSettings
    ) -> None:
        self._slurm = slurm
        self._store = store
        self._open = store.open_runs
        self._recorder = recorder
        self._lost = lost
        self._settings = settings
        self._unresolved: set[RunKey] = set()
        """Runs of which neither slurmctld nor accounting has more than their end: each is logged once."""

    def look_up(self, keys: Sequence[RunKey]) -> Iterator[None]:
        """Ask for the ends of open runs that slurmctld has forgotten, or whose job has another run now.

        Yields between its queries. Raises SlurmError.
        """
        if not keys:
            return
        oldest = min(key.start_time for key in keys)
        for ended in self._slurm.ends_of({key.job_id for key in keys}, oldest, self._settings.now()):
            self.record([each for each in ended if each.key in self._open])
            yield

    def record(self, ended: list[AccountedEnd]) -> None:
        """Record runs that accounting has closed: open ones get their stop, the others start and stop together.

        Nearly all are done already: for those a query of the outbox is all. Raises SlurmError.
        """
        for each in ended:
            self._lost.note_end(each.end.end_time)
        history_until = self._settings.history_until()
        unknown = self._unknown(each.key for each in ended if each.end.end_time >= history_until)
        new = [each for each in ended if each.key in self._open or each.key in unknown]
        ends = {each.key: each.end for each in self._without_remainders(new, unknown)}
        unknown = self._unknown(ends)
        # First what needs no further query, which may fail.
        begun = {key: end for key, end in ends.items() if self._open.has_begun(key)}
        self._store.end({key: self._lost.end_of(key, end) for key, end in begun.items()})
        self._record_late({key: end for key, end in ends.items() if key in unknown or self._open.is_preparing(key)})

    def _unknown(self, keys: Iterable[RunKey]) -> set[RunKey]:
        return set(self._store.unknown(key for key in keys if key not in self._open))

    def _without_remainders(self, ended: list[AccountedEnd], unknown: set[RunKey]) -> list[AccountedEnd]:
        """The same ends, where the remainder of a resized run is replaced by the run that it belongs to.

        Accounting closes the record of a resized run and goes on with another one, often outside of this window.
        """
        doubtful = [each for each in ended if each.may_be_remainder and each.key in unknown]
        if not doubtful:
            return ended
        now = self._settings.now()
        jobs = {each.key.job_id for each in doubtful}
        begun = [run.key.start_time for job_id in jobs for run in self._open.of_job(job_id)]
        oldest = min(now - self._settings.max_span, *begun, *(each.key.start_time for each in doubtful))
        whole = [each for some in self._slurm.ends_of(jobs, oldest, now) for each in some]
        remainders = resize_remainders(doubtful, whole)
        self._store.commit(Batch(runs={key: OpenRun(key, Stage.DONE, "", None) for key in remainders}))
        left_out = {each.key for each in doubtful} - {each.key for each in whole}
        if left_out != remainders:
            log.warning("accounting tells %d runs only once: they are left for later", len(left_out - remainders))
        resized_jobs = {key.job_id for key in remainders}
        resized = [each for each in whole if each.key.job_id in resized_jobs]
        return [each for each in ended if each.key not in left_out] + resized

    def _record_late(self, ends: Mapping[RunKey, End]) -> None:
        """Record runs that ended before their start was enqueued: with the best resources that can still be had."""
        if not ends:
            return
        current: list[Run] = []
        waiting: set[RunKey] = set()
        for details in self._slurm.read_details({key.job_id for key in ends}):
            current += details.runs
            self._recorder.record(details, [run for run in details.runs if run.key in ends and run.end])
            waiting |= {run.key for run in details.runs if run.awaits_layout}
            waiting |= {key for key in ends if key.job_id in details.failed}
        left = self._unreported(ends) - waiting
        if left:
            self._record_from_accounting({key: ends[key] for key in left}, current)
            self._log_unresolved(left)

    def _record_from_accounting(self, ends: Mapping[RunKey, End], current: Sequence[Run]) -> None:
        """Record runs that slurmctld has forgotten. `current` are those that it shows of their jobs."""
        since = min(key.start_time for key in ends)
        for details in self._slurm.read_accounted({key.job_id for key in ends}, since, self._settings.now()):
            runs = with_ends(details.runs, ends)
            requeued = [run for run in runs if went_back(run, [*details.runs, *current])]
            idle = self._leave_out_idle(requeued)
            self._recorder.record(details, [run for run in runs if run.key not in idle])

    def _leave_out_idle(self, requeued: list[Run]) -> set[RunKey]:
        """Leave out requeued runs that never launched anything: cc-backend would take them for the real run."""
        if not requeued or not self._settings.records_steps:
            return set()
        jobs = {job_id for run in requeued for job_id in (run.key.job_id, run.het_job_id) if job_id}
        since = min(run.key.start_time for run in requeued)
        launches = [each for some in self._slurm.launches_of(jobs, since, self._settings.now()) for each in some]
        idle = {run.key: run.end for run in never_launched(requeued, launches) if run.end}
        self._store.leave_out_idle(idle)
        return set(idle)

    def _log_unresolved(self, asked: set[RunKey]) -> None:
        """Log, once for each, runs of these that are still not reported."""
        unresolved = self._unreported(asked)
        for key in unresolved - self._unresolved:
            log.error("%s is over, but neither slurmctld nor accounting tells more: they are asked again", key)
        kept = self._unresolved if len(self._unresolved) < MAX_UNRESOLVED else set()
        self._unresolved = kept - asked | unresolved

    def _unreported(self, keys: Iterable[RunKey]) -> set[RunKey]:
        return {key for key in keys if key in self._open or self._store.unknown([key])}
