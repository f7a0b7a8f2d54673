"""Looks up in Slurm the jobs that hook events name."""

from __future__ import annotations

import time

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.daemon.hook_coverage import HookCoverage
from cc_slurm_adapter.hooks.pending_events import PendingEvents
from cc_slurm_adapter.jobs.watch import JobWatch
from cc_slurm_adapter.model import HookEvent
from cc_slurm_adapter.system.backoff import RetriedStep

LONGEST_RETRY = 5.0
"""Seconds between two tries. A hook event says that slurmctld runs, so it is tried sooner than by polls."""


class HookLookups:
    """The hook events that wait, and one lookup for many of them when they are due. Used by the main thread alone."""

    def __init__(
        self,
        watch: JobWatch,
        counters: Counters,
        max_tries: int,
        query_delay: float,
        coverage: HookCoverage | None = None,
    ) -> None:
        """`query_delay` is how many seconds an event waits at most for the first lookup of its job."""
        self._watch = watch
        self._counters = counters
        self._coverage = coverage
        self._pending = PendingEvents(max_tries, query_delay, watch.reads_all_jobs)
        self.step = RetriedStep("serving hook events", LONGEST_RETRY)
        self.seconds = 0.0
        """Spent on lookups since the start: a poll that they interrupt took less by so much."""

    def add(self, event: HookEvent) -> None:
        """Add an event that arrived; it is left to the next poll when too many wait."""
        self._counters.count("hook_events")
        if self._coverage is not None:
            self._coverage.announced(event.job_id)
        if not self._pending.add(event, time.monotonic()):
            self._counters.count("hook_events_left_to_polls")

    def next_due(self) -> float | None:
        """Return time.monotonic() of the next lookup; None while no event waits."""
        moment = self._pending.next_due()
        return None if moment is None else max(moment, self.step.not_before)

    def is_due(self) -> bool:
        """Tell whether the next lookup is due now."""
        moment = self.next_due()
        return moment is not None and time.monotonic() >= moment

    def attempt(self) -> bool:
        """Look up the jobs whose events are due. Returns False when that failed; they are looked up again later."""
        began = time.monotonic()
        has_worked = self.step.attempt(self._look_up)
        self.seconds += time.monotonic() - began
        return has_worked

    def _look_up(self) -> bool:
        """Return False when there was nothing to look up."""
        began = time.monotonic()
        job_ids = self._pending.due(began, lambda event: self._watch.is_known(event.job_id, over=event.is_end))
        if not job_ids:
            return False
        try:
            known = self._watch.look_up(job_ids)
        except Exception:
            self._pending.failed(job_ids, began, time.monotonic())
            raise
        self._pending.looked_up(
            job_ids,
            began,
            time.monotonic(),
            lambda event: self._watch.is_settled(event.job_id, over=event.is_end),
            known,
        )
        return True
