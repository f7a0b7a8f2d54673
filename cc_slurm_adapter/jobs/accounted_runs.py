"""Records runs that accounting has closed.

A run whose start is enqueued already gets its stop. A run that was not seen before gets its start and stop together. A
run that ended before the first moment and was not known then is history: its start is not reported. A failed query ends
the step with a SlurmError, and nothing is concluded from the failure.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from cc_slurm_adapter.jobs.decisions import never_launched, resize_remainders, went_back, with_ends
from cc_slurm_adapter.jobs.lost_runs import LostRuns
from cc_slurm_adapter.jobs.notes import REMAINDER
from cc_slurm_adapter.jobs.recorder import Recorder
from cc_slurm_adapter.jobs.run_store import RunStore
from cc_slurm_adapter.jobs.settings import WatchSettings
from cc_slurm_adapter.log import Repeated
from cc_slurm_adapter.model import AccountedEnd, End, Run, RunKey, job_list
from cc_slurm_adapter.slurm.interface import Slurm
from cc_slurm_adapter.system.quantities import counted

log = logging.getLogger(__name__)

MAX_UNRESOLVED = 10_000
"""The most runs that are remembered as logged. Above that number all are logged again."""


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
        """Runs about which neither slurmctld nor accounting knows more than their end. Each is logged once."""
        self._incomplete_answers = Repeated(settings.monotonic)

    def look_up(self, keys: Sequence[RunKey]) -> Iterator[None]:
        """Ask accounting for the ends of open runs that slurmctld has forgotten, or whose job has another run now.

        Yields between its queries. Raises SlurmError.
        """
        if not keys:
            return
        oldest = min(key.start_time for key in keys)
        for ended in self._slurm.ends_of({key.job_id for key in keys}, oldest, self._settings.now()):
            self.record([each for each in ended if each.key in self._open])
            yield

    def record(self, ended: list[AccountedEnd]) -> None:
        """Record runs that accounting has closed: open ones get their stop, the others get start and stop together.

        Nearly all are done already, and need only one query of the outbox. Raises SlurmError.
        """
        for each in ended:
            self._lost.note_end(each.end.end_time)
        history_until = self._settings.history_until()
        unknown = self._unknown(each.key for each in ended if each.end.end_time >= history_until)
        new = [each for each in ended if each.key in self._open or each.key in unknown]
        ends = {each.key: each.end for each in self._without_remainders(new, unknown)}
        unknown |= self._unknown(ends.keys() - {each.key for each in new})
        # First those that need no further query, since a query may fail.
        begun = {key: end for key, end in ends.items() if self._open.has_begun(key)}
        self._store.end({key: self._lost.end_of(key, end) for key, end in begun.items()})
        self._record_late({key: end for key, end in ends.items() if key in unknown or self._open.is_preparing(key)})

    def _unknown(self, keys: Iterable[RunKey]) -> set[RunKey]:
        return set(self._store.unknown(key for key in keys if key not in self._open))

    def _without_remainders(self, ended: list[AccountedEnd], unknown: set[RunKey]) -> list[AccountedEnd]:
        """Return these ends, with the remainder of a resized run replaced by the run that it belongs to.

        When a run is resized, accounting closes its record and opens another one, often outside of this window.
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
        self._store.leave_out(remainders, REMAINDER)
        left_out = {each.key for each in doubtful} - {each.key for each in whole}
        if left_out != remainders and self._incomplete_answers.is_due():
            text = "accounting has shown %s in one answer and not in the next: read again later%s"
            log.warning(text, counted(len(left_out - remainders), "run"), self._incomplete_answers.note)
        resized_jobs = {key.job_id for key in remainders}
        resized = [each for each in whole if each.key.job_id in resized_jobs]
        return [each for each in ended if each.key not in left_out] + resized

    def _record_late(self, ends: Mapping[RunKey, End]) -> None:
        """Record runs that ended before their start was enqueued, with the best resources that Slurm can still show."""
        if not ends:
            return
        current: list[Run] = []
        waiting: set[RunKey] = set()
        known = self._still_known(ends)
        for details in self._slurm.read_details(known) if known else ():
            current += details.runs
            self._recorder.record(details, [run for run in details.runs if run.key in ends and run.end])
            waiting |= {run.key for run in details.runs if run.awaits_layout}
            waiting |= {key for key in ends if key.job_id in details.failed}
        left = self._unreported(ends) - waiting
        if left:
            self._record_from_accounting({key: ends[key] for key in left}, current, known)
            self._log_unresolved(left)

    def _still_known(self, ends: Mapping[RunKey, End]) -> set[int]:
        ended: dict[int, int] = {}
        for key, end in ends.items():
            ended[key.job_id] = max(end.end_time, ended.get(key.job_id, 0))
        return self._slurm.still_known(ended)

    def _record_from_accounting(
        self, ends: Mapping[RunKey, End], current: Sequence[Run], known: Collection[int]
    ) -> None:
        """Record runs that slurmctld does not show. `current` are the runs that it shows of the same jobs.

        It is asked for texts only of jobs that it may still know.
        """
        since = min(key.start_time for key in ends)
        jobs = {key.job_id for key in ends}
        with contextlib.closing(self._slurm.read_accounted(jobs, since, self._settings.now())) as pieces:
            for details in pieces:
                runs = with_ends(details.runs, ends)
                requeued = went_back(runs, [*details.runs, *current])
                idle = self._leave_out_idle(requeued)
                left = [run for run in runs if run.key not in idle]
                self._recorder.record(details, [run for run in left if run.key.job_id in known])
                self._recorder.record(details, [run for run in left if run.key.job_id not in known], has_texts=False)

    def _leave_out_idle(self, requeued: list[Run]) -> set[RunKey]:
        """Leave out requeued runs that never launched anything, and return their keys.

        cc-backend would take such a run for the real one.
        """
        if not requeued or not self._settings.records_steps:
            return set()
        jobs = {job_id for run in requeued for job_id in (run.key.job_id, run.het_job_id) if job_id}
        since = min(run.key.start_time for run in requeued)
        launches = [each for some in self._slurm.launches_of(jobs, since, self._settings.now()) for each in some]
        idle = {run.key: run.end for run in never_launched(requeued, launches) if run.end}
        self._store.leave_out_idle(idle)
        return set(idle)

    def _log_unresolved(self, asked: set[RunKey]) -> None:
        """Log those of these runs that are still not reported, each once, in one line."""
        unresolved = self._unreported(asked)
        new = unresolved - self._unresolved
        if new:
            log.error(
                "%s over, but neither slurmctld nor accounting has more about them: they are asked again. Jobs %s",
                counted(len(new), "run is", "runs are"),
                job_list(new),
            )
        kept = self._unresolved if len(self._unresolved) < MAX_UNRESOLVED else set()
        self._unresolved = kept - asked | unresolved

    def _unreported(self, keys: Collection[RunKey]) -> set[RunKey]:
        return {key for key in keys if key in self._open} | self._unknown(keys)
