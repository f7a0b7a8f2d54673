"""Looks up in Slurm the jobs that hook events name."""

from __future__ import annotations

import time

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.daemon.hook_coverage import HookCoverage
from cc_slurm_adapter.daemon.report import SLURMCTLD_HOOKS, HooksReport
from cc_slurm_adapter.hooks.pending_events import PendingEvents
from cc_slurm_adapter.jobs.watch import JobWatch
from cc_slurm_adapter.model import HookEvent
from cc_slurm_adapter.outbox.event_latency import EventLatency
from cc_slurm_adapter.system.backoff import TIMING, RetriedStep, Timing
from cc_slurm_adapter.system.outages import Outages

LONGEST_RETRY = 5.0
"""The most seconds between two tries. A hook event shows that slurmctld runs, so it is tried sooner than by polls."""


class HookLookups:
    """The hook events that wait, and one lookup for many of them when they are due. Used only by the main thread."""

    def __init__(  # noqa: PLR0913 - the parts it serves, and how often it asks
        self,
        watch: JobWatch,
        counters: Counters,
        max_tries: int,
        query_delay: float,
        coverage: HookCoverage | None = None,
        event_latency: EventLatency | None = None,
        *,
        timing: Timing = TIMING,
        outages: Outages | None = None,
    ) -> None:
        """`query_delay` is the most seconds that an event waits for the first lookup of its job."""
        self._watch = watch
        self._counters = counters
        self._coverage = coverage
        self._event_latency = event_latency
        self._pending = PendingEvents(max_tries, query_delay, watch.reads_all_jobs)
        self._clock = timing.clock
        self.step = RetriedStep(
            "looking up the jobs of hook events", timing=timing._replace(longest_retry=LONGEST_RETRY), outages=outages
        )
        self.report = HooksReport()
        """What has arrived. Replaced as a whole, so any thread may read it."""
        self.seconds = 0.0
        """Seconds spent on lookups since the start. They do not count as the time of a poll that they interrupt."""

    def add(self, event: HookEvent) -> None:
        """Add an event that has arrived. It is left to the next poll if too many wait."""
        heard = {*self.report.from_slurmctld, event.context} & set(SLURMCTLD_HOOKS)
        self.report = HooksReport(self.report.events + 1, time.time(), from_slurmctld=tuple(sorted(heard)))
        if self._event_latency is not None:
            self._event_latency.announced(event)
        if self._coverage is not None:
            self._coverage.announced(event.job_id)
        if not self._pending.add(event, self._clock()):
            self._counters.count("hook_events_left_to_polls")

    def change_limits(self, max_tries: int, query_delay: float) -> None:
        """Put other limits in force. No event that waits is lost."""
        self._pending.change_limits(max_tries, query_delay)

    def log_missed(self) -> None:
        """Log once an hour how many runs began without an event; called after each poll."""
        if self._coverage is not None:
            self._coverage.log_missed()

    def next_due(self) -> float | None:
        """Return when the next lookup is due, by the clock; None while no event waits."""
        moment = self._pending.next_due()
        return None if moment is None else max(moment, self.step.not_before)

    def is_due(self) -> bool:
        """Return whether the next lookup is due now."""
        moment = self.next_due()
        return moment is not None and self._clock() >= moment

    def attempt(self) -> bool:
        """Look up the jobs whose events are due. Return False if that failed: then they are looked up again later."""
        began = self._clock()
        has_worked = self.step.attempt(self._look_up)
        self.seconds += self._clock() - began
        return has_worked

    def _look_up(self) -> bool:
        """Look up the jobs whose events are due. Return False if there was nothing to look up."""
        began = self._clock()
        job_ids = self._pending.due(began, lambda event: self._watch.is_known(event.job_id, over=event.is_end))
        if not job_ids:
            return False
        try:
            known = self._watch.look_up(job_ids)
        except Exception:
            self._pending.failed(job_ids, began, self._clock())
            raise
        self._pending.looked_up(
            job_ids,
            began,
            self._clock(),
            lambda event: self._watch.is_settled(event.job_id, over=event.is_end),
            known,
        )
        return True
