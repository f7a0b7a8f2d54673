"""Counts runs that began without a hook event although hooks should announce all. Once an hour it logs how many."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from cc_slurm_adapter.model import Run
from cc_slurm_adapter.system.quantities import counted

log = logging.getLogger(__name__)

EVERY = 3600.0
"""Seconds between two lines."""
LATEST = 300.0
"""An event may arrive this many seconds after its run was found."""
MARGIN = 60
"""A run that began within this many seconds after the start of the daemon may not have been announced to it."""
MAX_JOBS = 100_000
"""The most jobs of an hour that are remembered. If there are more, nothing is counted."""
NAMED = 10
"""The most jobs that a line names."""


class HookCoverage:
    """Compares the runs of one cluster with the hook events that named their jobs.

    `up_since` is the Unix time from which events are accepted, `clock` is monotonic. `only_batch` says that Prolog is
    the only hook: slurmd calls it when a job first runs something on a node, which an allocation may never do. So only
    runs with a script are counted then. The later components of a heterogeneous job are not counted either, since an
    event may name only its leader.
    """

    def __init__(self, up_since: int, *, only_batch: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._earliest = up_since + MARGIN
        self._only_batch = only_batch
        self._clock = clock
        self._next = clock() + EVERY
        self._announced: set[int] = set()
        self._announced_before: set[int] = set()
        """Jobs that were announced in the hour before: an event may be older than the time when its run was found."""
        self._began: dict[int, float] = {}
        """The time at which a run of the job was found, on `clock`."""

    def announced(self, job_id: int) -> None:
        """Record that a hook event named this job."""
        if len(self._announced) >= MAX_JOBS:
            self._began.clear()
        else:
            self._announced.add(job_id)

    def began(self, run: Run) -> None:
        """Record a run whose start was just enqueued."""
        if run.key.start_time < self._earliest or run.het_job_offset or (self._only_batch and not run.has_script):
            return
        if len(self._began) < MAX_JOBS:
            self._began[run.key.job_id] = self._clock()

    def log_missed(self) -> None:
        """Log runs without a hook event when an hour is over. Runs that were just found are checked an hour later."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + EVERY
        ripe = [job_id for job_id, found in self._began.items() if found <= now - LATEST]
        announced = self._announced | self._announced_before
        missed = [job_id for job_id in ripe if job_id not in announced]
        for job_id in ripe:
            del self._began[job_id]
        self._announced_before, self._announced = self._announced, set()
        if missed:
            log.warning(
                "%s began without a hook event in the last hour (jobs %s): short ones are reported without cores"
                " and GPUs. Call the hook by hand as SlurmUser and see whether hook_events grows; slurmctld's log says"
                " why it fails",
                counted(len(missed), "run"),
                ", ".join(map(str, missed[:NAMED])) + (", ..." if len(missed) > NAMED else ""),
            )
