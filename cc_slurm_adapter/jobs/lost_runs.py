"""Runs that Slurm itself has lost: slurmctld knows no such job, and accounting never gets an end of it.

Slurm calls them runaway jobs: their end was lost on its way to slurmdbd, as when slurmctld had more to tell than it
keeps, and slurmctld has forgotten them. (`slurmctld -c` is no cause: it ends all jobs in accounting itself.) They are
the one exception to "a run is over only when Slurm says so", since nobody would ever say so. What is asked for instead
is evidence that accounting has all it will ever get: slurmctld denies the job, nothing waits in it for slurmdbd, and
accounting shows ends of other runs from a day after the run was seen last. Then it is reported as failed at that time.

A run that is taken for lost has no nodes in the outbox any more, and there the time at which it was seen last: so a
restart changes nothing. A run that is not taken for lost yet at a restart was seen at the last checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

from cc_slurm_adapter.errors import CommandCancelled, SlurmError
from cc_slurm_adapter.jobs.decisions import lost_end
from cc_slurm_adapter.jobs.recorder import Recorder
from cc_slurm_adapter.log import Reminder
from cc_slurm_adapter.model import End, RunKey, job_list
from cc_slurm_adapter.outbox.outbox import Batch
from cc_slurm_adapter.slurm.interface import Slurm

log = logging.getLogger(__name__)

PROOF = 86400
"""Seconds that the newest end in accounting must be later than a run was seen last, so that it counts as lost."""


class LostRuns:
    """Of one cluster with accounting. `ask_for` takes what accounting says of some runs."""

    def __init__(
        self,
        slurm: Slurm,
        recorder: Recorder,
        ask_for: Callable[[Sequence[RunKey]], Iterator[None]],
        clock: Callable[[], float],
    ) -> None:
        self._slurm = slurm
        self._recorder = recorder
        self._open = recorder.open
        self._ask_for = ask_for
        self._clock = clock
        self._newest_end = 0
        self._reminder = Reminder()

    def note_end(self, end_time: int) -> None:
        """Accounting shows that a run ended at this Unix time; one that is still to come proves nothing."""
        now = self._clock()
        if end_time <= now:
            self._newest_end = max(self._newest_end, end_time) if self._newest_end <= now else end_time

    def end_of(self, key: RunKey, end: End) -> End:
        """What is to be reported of an open run that accounting tells to be over.

        `sacctmgr show runawayjobs` ends runs with their start as their end, completed: seen later they were not over.
        """
        lost_since = self._open[key].lost_since
        return end if lost_since is None or end.end_time >= lost_since else lost_end(lost_since)

    def look_at(self, last_seen: Mapping[RunKey, int]) -> Iterator[None]:
        """Open runs of which neither slurmctld nor accounting tells, with the Unix times at which they were seen last.

        Yields between its questions. Raises SlurmError.
        """
        if not last_seen or not self._has_caught_up():
            return
        yield
        # What had waited for slurmdbd is there now.
        yield from self._ask_for(list(last_seen))
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
        self._take_for_lost(lost)
        self._end(over)

    def _has_caught_up(self) -> bool:
        try:
            backlog = self._slurm.accounting_backlog()
        except CommandCancelled:
            raise
        except SlurmError as error:
            if self._reminder.is_due():
                log.warning("whether Slurm has lost runs cannot be seen without sdiag, they stay open: %s", error)
            return False
        self._reminder.over()
        return not backlog

    def _is_proven(self, lost_since: int, now: int) -> bool:
        return lost_since + PROOF <= self._newest_end <= now

    def _take_for_lost(self, lost: Mapping[RunKey, int]) -> None:
        """From now on they hold no nodes."""
        lost = {key: seen for key, seen in lost.items() if key in self._open}
        if not lost:
            return
        runs = {key: self._open[key]._replace(hosts="", lost_since=seen) for key, seen in lost.items()}
        self._recorder.commit(Batch(runs=runs))
        log.warning(
            "Slurm has lost %d runs: slurmctld knows no such jobs, and accounting has no end of them. `sacctmgr show"
            " runawayjobs` lists such jobs and can end them. When accounting has shown ends of other runs for a day"
            " they are reported as failed: jobs %s",
            len(lost),
            job_list(lost),
        )

    def _end(self, over: Mapping[RunKey, int]) -> None:
        over = {key: seen for key, seen in over.items() if key in self._open}
        if over:
            self._recorder.end({key: lost_end(seen) for key, seen in over.items()})
            log.warning(
                "%d runs that Slurm has lost are reported as failed, at the time at which they were seen last: jobs %s",
                len(over),
                job_list(over),
            )
