"""Ends runs that Slurm itself has lost: slurmctld does not know the job, and accounting never gets its end.

Slurm calls them runaway jobs. Their end was lost on its way to slurmdbd, for example because slurmctld had more to
report than it keeps, and slurmctld has forgotten them. (`slurmctld -c` does not cause this: it ends all jobs in
accounting itself.) They are the one exception to "a run is over only when Slurm says so", since Slurm would never say
so. What counts instead is evidence that accounting has all that it will ever get: slurmctld does not know the job, it
has nothing left to send to slurmdbd, and accounting shows ends of other runs from a day after the run was last seen.
Then the run is reported as failed at the time when it was last seen.

A run that counts as lost has no nodes in the outbox any more. The time when it was last seen is stored there instead,
so a restart changes nothing. A run that does not count as lost yet at a restart was seen at the last checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from cc_slurm_adapter.errors import CommandCancelled, SlurmError
from cc_slurm_adapter.jobs.decisions import lost_end
from cc_slurm_adapter.jobs.run_store import RunStore
from cc_slurm_adapter.jobs.settings import WatchSettings
from cc_slurm_adapter.log import NOTICE
from cc_slurm_adapter.model import End, RunKey, job_list
from cc_slurm_adapter.outbox.outbox import Batch
from cc_slurm_adapter.slurm.interface import Slurm
from cc_slurm_adapter.system.quantities import counted

log = logging.getLogger(__name__)

SDIAG = "asking sdiag for what slurmctld still has for slurmdbd"

PROOF = 86400
"""A lost run is ended when the newest end in accounting is at least this many seconds after it was last seen."""


class LostRuns:
    """Decides which runs are lost, for one cluster with accounting."""

    def __init__(self, slurm: Slurm, store: RunStore, settings: WatchSettings) -> None:
        self._slurm = slurm
        self._store = store
        self._open = store.open_runs
        self._clock = settings.clock
        self._outages = settings.outages
        self._newest_end = 0
        """The latest Unix time at which any run ended according to accounting."""

    def note_end(self, end_time: int) -> None:
        """Record that accounting shows a run that ended at this Unix time. A time in the future proves nothing."""
        now = self._clock()
        if end_time <= now:
            self._newest_end = max(self._newest_end, end_time) if self._newest_end <= now else end_time

    def end_of(self, key: RunKey, end: End) -> End:
        """Return the end to report for an open run that is over according to accounting.

        `sacctmgr show runawayjobs` ends runs as completed, with their start as their end. A run that was seen after
        that end was not over then.
        """
        lost_since = self._open[key].lost_since
        return end if lost_since is None or end.end_time >= lost_since else lost_end(lost_since)

    def look_up(self, last_seen: Mapping[RunKey, int]) -> Iterator[None]:
        """Ask slurmctld about runs that neither it nor accounting has shown, and mark or end those that are still open.

        `last_seen` has the Unix time when each of them was last seen. Yields between its queries. Raises SlurmError.
        """
        now = int(self._clock())
        lost: dict[RunKey, int] = {}
        over: dict[RunKey, int] = {}
        for key, seen in last_seen.items():
            run = self._open.get(key)
            if run is None or (run.lost_since is not None and not self._is_proven(run.lost_since, now)):
                continue
            if self._slurm.is_forgotten(key.job_id):
                found, when = (lost, seen) if run.lost_since is None else (over, run.lost_since)
                found[key] = max(min(when, now), key.start_time)
            yield
        self._mark_lost(lost)
        self._end(over)

    def can_be_judged(self) -> bool:
        """Return whether slurmctld has nothing left for slurmdbd, so that accounting has all that it will get."""
        try:
            backlog = self._slurm.accounting_backlog()
        except CommandCancelled:
            raise
        except SlurmError as error:
            note = self._outages.failed(SDIAG, str(error))
            if note is not None:
                log.warning(
                    "whether Slurm has lost runs cannot be seen without sdiag, they stay open: %s%s", error, note
                )
            return False
        note = self._outages.works(SDIAG)
        if note is not None:
            log.log(NOTICE, "%s works again%s", SDIAG, note)
        return not backlog

    def _is_proven(self, lost_since: int, now: int) -> bool:
        return lost_since + PROOF <= self._newest_end <= now

    def _mark_lost(self, lost: Mapping[RunKey, int]) -> None:
        """Mark these runs as lost: from now on they hold no nodes."""
        lost = {key: seen for key, seen in lost.items() if key in self._open}
        if not lost:
            return
        runs = {key: self._open[key]._replace(hosts="", lost_since=seen) for key, seen in lost.items()}
        self._store.commit(Batch(runs=runs))
        log.warning(
            "Slurm has lost %s: slurmctld knows no such jobs, and accounting has no end of them. `sacctmgr show"
            " runawayjobs` lists such jobs and can end them. When accounting has shown ends of other runs for a day"
            " they are reported as failed: jobs %s",
            counted(len(lost), "run"),
            job_list(lost),
        )

    def _end(self, over: Mapping[RunKey, int]) -> None:
        over = {key: seen for key, seen in over.items() if key in self._open}
        if over:
            self._store.end({key: lost_end(seen) for key, seen in over.items()})
            log.warning(
                "%s reported as failed, with the time of the last sight, as Slurm has lost them: jobs %s",
                counted(len(over), "run is", "runs are"),
                job_list(over),
            )
