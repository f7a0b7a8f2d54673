"""Compares what a destination believes to be running with what runs in Slurm."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.jobs.decisions import NEAR, forgotten_end, nearest_end
from cc_slurm_adapter.jobs.notes import STOPPED_THERE
from cc_slurm_adapter.jobs.run_store import RunStore
from cc_slurm_adapter.jobs.settings import WatchSettings
from cc_slurm_adapter.log import NOTICE, Reminder, Repeated
from cc_slurm_adapter.model import AccountedEnd, End, RunKey, job_list
from cc_slurm_adapter.outbox.outbox import Batch, OpenRun, Stage
from cc_slurm_adapter.sinks.base import PackedRows, RunningRow, RunningRows
from cc_slurm_adapter.slurm.interface import Slurm, ask_slurmctld
from cc_slurm_adapter.system.quantities import counted

log = logging.getLogger(__name__)

YOUNG = 300
"""For this many seconds cc-backend may not list a new run yet: two intervals of its commit worker, and a bit more."""
ROWS_PER_QUERY = 200
"""The most rows whose jobs Slurm is asked about in one query."""
RUNS_AT_ONCE = 5000
"""The most open runs that are looked for among the rows at once."""


class Reconciliation:
    """Enqueues stops of rows that are over according to Slurm, and again the starts that the destination has lost."""

    def __init__(self, slurm: Slurm, store: RunStore, counters: Counters, settings: WatchSettings) -> None:
        self._slurm = slurm
        self._store = store
        self._open = store.open_runs
        self._counters = counters
        self._settings = settings
        self._lines, self._unsettled = Repeated(settings.monotonic), Reminder(settings.monotonic)

    def reconcile(self, running: RunningRows) -> None:
        """Compare a list of running rows, and enqueue what follows. Raises SlurmError.

        The list is as old as the request for it. So runs that have ended since the request are left out, and also those
        whose stop was delivered since.
        """
        self._resend_lost(running)
        now, cluster = self._settings.now(), self._settings.cluster
        stale = {key for row in running.rows if self._is_stale(key := RunKey(cluster, *row), now)}
        older = sorted(stale - self._store.settled_since(stale, running.asked))
        found: list[RunKey] = []
        without_end: list[RunKey] = []
        try:
            for at in range(0, len(older), ROWS_PER_QUERY):
                some, left = self._stop_some(older[at : at + ROWS_PER_QUERY], now, running.asked)
                found += some
                without_end += left
        finally:
            self._log_over(len(found), len(found) - len(without_end))
        self._log_unsettled([key for key in without_end if not self._is_near_open(key)])

    def _resend_lost(self, running: RunningRows) -> None:
        unlisted = self._unlisted(running.rows)
        jobs = {key.job_id for key in unlisted}
        starts: dict[int, list[int]] = {}
        for row in running.rows:
            if row.job_id in jobs:
                starts.setdefault(row.job_id, []).append(row.start_time)

        def is_lost(key: RunKey) -> bool:
            return key in unlisted and all(abs(start - key.start_time) > NEAR for start in starts.get(key.job_id, ()))

        lost = self._store.resend_starts(running.sink, is_lost, running.asked - YOUNG)
        if lost:
            self._counters.count("starts_sent_again", len(lost))
            if self._lines.is_due("lost"):
                text = "cc-backend has lost %s: what it has lost is sent again%s"
                log.warning(text, counted(len(lost), "job that runs", "jobs that run"), self._lines.note)

    def _unlisted(self, rows: Iterable[RunningRow]) -> set[RunKey]:
        """Return the open runs that have no row with their start. Only some are compared at once, to save memory."""
        packed = rows if isinstance(rows, PackedRows) else PackedRows(rows)
        runs = iter(self._open)
        found: set[RunKey] = set()
        while some := {(key.job_id, key.start_time): key for key in islice(runs, RUNS_AT_ONCE)}:
            found.update(some[place] for place in some.keys() - packed.among(some))
        return found

    def _is_stale(self, key: RunKey, now: int) -> bool:
        is_young = abs(now - key.start_time) <= YOUNG  # a start in the future is old: the clock was set back since
        return not is_young and key not in self._open and not self._store.has_pending_stop(key)

    def _stop_some(self, stale: list[RunKey], now: int, asked: float) -> tuple[list[RunKey], list[RunKey]]:
        """Enqueue the stops of those rows that are over. Return the rows that are not known to run.

        Those of them that have no end are the second list.
        """
        ends, forgotten = self._ends_of(stale, now)
        found = {key: nearest_end(key, ends, self._open.of_job(key.job_id)) for key in stale}
        ended_since = {
            key
            for key, end in found.items()
            if end and asked <= end.end_time <= now and key.start_time <= now and key.job_id not in forgotten
        }  # not ends in the future: the clock was set back since
        not_running = {key: end for key, end in found.items() if key not in ended_since}
        self._stop(not_running)
        return list(not_running), [key for key, end in not_running.items() if end is None]

    def _stop(self, found: Mapping[RunKey, End | None]) -> None:
        """Enqueue the stops of those runs that have an end."""
        if not found:
            return
        batch = Batch()
        for key, end in found.items():
            if end is not None:
                self._store.enqueue_stop(batch, key, end)
                batch.runs[key] = OpenRun(key, Stage.DONE, "", None, note=STOPPED_THERE)
        self._counters.count("reconciled_stops", len(batch.runs))
        self._store.commit(batch)

    def _log_over(self, found: int, over: int) -> None:
        if over and self._lines.is_due("over"):
            log.warning(
                "cc-backend has %d running jobs that are not known to run: according to Slurm %d of them are over%s",
                found,
                over,
                self._lines.note,
            )

    def _log_unsettled(self, unsettled: Sequence[RunKey]) -> None:
        """Log rows that have no end. They are the same at every comparison.

        They are not ended like runs that Slurm has lost, since this program never saw them run in this cluster.
        """
        if not unsettled:
            if self._unsettled.over():
                log.log(NOTICE, "Slurm knows all running jobs of cc-backend again%s", self._unsettled.note)
        elif self._unsettled.is_due():
            log.warning(
                "cc-backend has %d running jobs of which Slurm does not say whether they are over. Where Slurm has lost"
                " jobs `sacctmgr show runawayjobs` lists them and can end them: jobs %s%s",
                len(unsettled),
                job_list(unsettled),
                self._unsettled.note,
            )

    def _is_near_open(self, key: RunKey) -> bool:
        starts = [run.key.start_time for run in self._open.of_job(key.job_id)]
        return any(abs(start - key.start_time) <= NEAR for start in starts)

    def _ends_of(self, stale: list[RunKey], now: int) -> tuple[list[AccountedEnd], set[int]]:
        """Return the ends of these runs, and the jobs about which slurmctld only says that it does not know them."""
        jobs = {key.job_id for key in stale}
        if self._settings.has_accounting:
            since = min(key.start_time for key in stale) - NEAR
            return [each for ended in self._slurm.ends_of(jobs, since, now) for each in ended], set()
        runs, forgotten = ask_slurmctld(self._slurm, jobs)
        ends = [AccountedEnd(run.key, run.end) for run in runs.values() if run.end]
        return ends + [AccountedEnd(key, forgotten_end(now)) for key in stale if key.job_id in forgotten], forgotten
