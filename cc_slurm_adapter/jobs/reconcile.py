"""Holds what a destination believes to be running against what runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

from cc_slurm_adapter.counters import Status
from cc_slurm_adapter.jobs.decisions import NEAR, forgotten_end, nearest_end
from cc_slurm_adapter.jobs.recorder import Recorder
from cc_slurm_adapter.model import AccountedEnd, End, RunKey, job_list
from cc_slurm_adapter.outbox.outbox import Batch, OpenRun, Stage
from cc_slurm_adapter.sinks.base import RunningRows
from cc_slurm_adapter.slurm.interface import Slurm, ask_slurmctld

log = logging.getLogger(__name__)

YOUNG = 300
"""Seconds in which cc-backend may not list a run yet: two intervals of its commit worker, and a bit."""
AT_ONCE = 200
"""Rows that Slurm is asked for at once."""


class Reconciliation:
    """For one cluster. What Slurm says is over gets its stop; what runs and is lost there gets its start again."""

    def __init__(  # noqa: PLR0913 - the parts it needs
        self,
        slurm: Slurm,
        recorder: Recorder,
        status: Status,
        cluster: str,
        clock: Callable[[], float],
        *,
        has_accounting: bool,
    ) -> None:
        self._slurm = slurm
        self._recorder = recorder
        self._status = status
        self._cluster = cluster
        self._clock = clock
        self._has_accounting = has_accounting

    def compare(self, running: RunningRows) -> None:
        """Owe what is found. Raises SlurmError.

        The list shows how it stood when it was asked for: what has ended since is left out, and so is what has been
        told since that it ended.
        """
        self._resend_lost(running)
        now = int(self._clock())
        stale = {key for row in running.rows if self._is_stale(key := RunKey(self._cluster, *row), now)}
        older = sorted(stale - self._recorder.settled_since(stale, running.asked))
        for at in range(0, len(older), AT_ONCE):
            self._stop_some(older[at : at + AT_ONCE], now, running.asked)

    def _resend_lost(self, running: RunningRows) -> None:
        starts: dict[int, list[int]] = {}
        for row in running.rows:
            starts.setdefault(row.job_id, []).append(row.start_time)

        def is_lost(key: RunKey) -> bool:
            return all(abs(start - key.start_time) > NEAR for start in starts.get(key.job_id, ()))

        lost = self._recorder.resend_starts(running.sink, is_lost, running.asked - YOUNG)
        if lost:
            self._status.count("starts_sent_again", len(lost))
            log.warning("cc-backend has lost %d jobs that run: their starts are sent again", len(lost))

    def _is_stale(self, key: RunKey, now: int) -> bool:
        is_young = abs(now - key.start_time) <= YOUNG  # one from the future is old: the clock was set back since
        return not is_young and key not in self._recorder.open and not self._recorder.owes_stop(key)

    def _stop_some(self, stale: list[RunKey], now: int, asked: float) -> None:
        ends, forgotten = self._ends_of(stale, now)
        found = {key: nearest_end(key, ends, self._recorder.open.of_job(key.job_id)) for key in stale}
        ended_since = {
            key
            for key, end in found.items()
            if end and asked <= end.end_time <= now and key.start_time <= now and key.job_id not in forgotten
        }  # not what is still to come: the clock was set back since
        self._stop({key: end for key, end in found.items() if key not in ended_since})

    def _stop(self, found: Mapping[RunKey, End | None]) -> None:
        """Tell of those that have an end that they are over."""
        if not found:
            return
        batch = Batch()
        for key, end in found.items():
            if end is not None:
                self._recorder.owe_stop(batch, key, end)
                batch.runs[key] = OpenRun(key, Stage.DONE, "", None)
        log.warning(
            "cc-backend has %d running jobs that are not known to run: Slurm says of %d of them that they are over",
            len(found),
            len(batch.runs),
        )
        self._tell_untold([key for key in found if key not in batch.runs])
        self._status.count("reconciled_stops", len(batch.runs))
        self._recorder.commit(batch)

    def _tell_untold(self, keys: Iterable[RunKey]) -> None:
        """They are not ended as those are that Slurm has lost: that they ran in this cluster was never seen here."""
        untold = [key for key in keys if not self._is_near_open(key)]
        if untold:
            log.warning(
                "nobody says of %d of them whether they are over. Where Slurm has lost jobs `sacctmgr show runawayjobs`"
                " lists them and can end them: jobs %s",
                len(untold),
                job_list(untold),
            )

    def _is_near_open(self, key: RunKey) -> bool:
        starts = [run.key.start_time for run in self._recorder.open.of_job(key.job_id)]
        return any(abs(start - key.start_time) <= NEAR for start in starts)

    def _ends_of(self, stale: list[RunKey], now: int) -> tuple[list[AccountedEnd], set[int]]:
        """The ends of these runs, and the jobs of which slurmctld only says that it knows none such."""
        jobs = {key.job_id for key in stale}
        if self._has_accounting:
            since = min(key.start_time for key in stale) - NEAR
            return [each for ended in self._slurm.ends_of(jobs, since, now) for each in ended], set()
        runs, forgotten = ask_slurmctld(self._slurm, jobs)
        ends = [AccountedEnd(run.key, run.end) for run in runs.values() if run.end]
        return ends + [AccountedEnd(key, forgotten_end(now)) for key in stale if key.job_id in forgotten], forgotten
