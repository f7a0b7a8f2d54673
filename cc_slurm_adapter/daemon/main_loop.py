"""The order of the daemon's work: hook events when they arrive, a poll every slurmPollInterval, accounting in steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from cc_slurm_adapter.daemon.activities import (
    TIMING,
    CatchUp,
    Comparison,
    NodeReports,
    Polls,
    Reloading,
    Timing,
    Upkeep,
)
from cc_slurm_adapter.daemon.hook_lookups import HookLookups
from cc_slurm_adapter.daemon.inbox import Inbox, Reload
from cc_slurm_adapter.daemon.status import StatusLine
from cc_slurm_adapter.model import HookEvent
from cc_slurm_adapter.sinks.base import RunningRows
from cc_slurm_adapter.system.backoff import RetriedStep

REST = 0.2
"""Seconds between two checks for a stop, while the loop rests after an unexpected error."""
LONGEST_REST = 5.0
"""The most seconds of such a rest. Hook events wait meanwhile."""


@dataclass(frozen=True)
class Activities:
    """All activities of the loop. Each is retried separately: one that fails is logged and waits, the others go on."""

    hooks: HookLookups
    polls: Polls
    nodes: NodeReports
    catch_up: CatchUp
    comparison: Comparison
    upkeep: Upkeep
    reloading: Reloading
    status: StatusLine


class MainLoop:
    """Decides what is done next. It runs in the main thread until `stop()`, which a signal handler may call."""

    def __init__(
        self,
        inbox: Inbox,
        activities: Activities,
        pulse: Callable[[], None] = lambda: None,
        *,
        timing: Timing = TIMING,
    ) -> None:
        """`pulse` is called at least once a second while the loop waits, and between the steps of its work."""
        self._inbox = inbox
        self.activities = activities
        self._pulse = pulse
        self._tick = timing.tick
        self._turning = RetriedStep(
            "a turn of the main loop", timing=timing.retries._replace(longest_retry=LONGEST_REST)
        )
        self._stopping = False

    def stop(self) -> None:
        """End the loop as soon as the step under way is over."""
        self._stopping = True

    def run(self) -> None:
        """Run until `stop` is called."""
        while not self._stopping:
            if self._turning.may_run():
                self._turning.attempt(self._turn)
            else:
                time.sleep(REST)

    def _turn(self) -> None:
        """Wait a second at most for something to do, and do it."""
        self._pulse()
        self._handle_items(min(self._seconds_to_wait(), self._tick))
        do = self.activities
        if do.hooks.is_due() and do.hooks.attempt() and do.polls.step.is_failing:
            do.polls.expedite()
        if do.polls.is_due():
            self._poll()
        elif do.nodes.query.is_failing and do.nodes.read():
            do.nodes.report()
        do.catch_up.attempt_step()
        # Not before a poll has shown what runs: else all rows of cc-backend seem stale, and Slurm is asked about each.
        if do.polls.polled:
            do.comparison.attempt()

    def _poll(self) -> None:
        """Do what is due every slurmPollInterval. The nodes come first: their layouts number the cores of runs."""
        do, began = self.activities, time.time()
        has_nodes = do.nodes.read()
        has_jobs = do.polls.attempt(self._between_queries)
        do.status.show(slurmctld_answers=not do.polls.step.is_failing)
        if self._stopping:
            return
        if has_nodes:
            do.nodes.report()
        do.upkeep.attempt()
        do.status.attempt()
        do.status.show(slurmctld_answers=not do.polls.step.is_failing)
        do.catch_up.begin(began, has_jobs=has_jobs)

    def _between_queries(self) -> None:
        """Handle hook events, which do not wait for the end of a poll."""
        self._pulse()
        self._handle_items(0)
        if self.activities.hooks.is_due():
            self.activities.hooks.attempt()

    def _seconds_to_wait(self) -> float:
        do = self.activities
        if do.catch_up.is_under_way:
            return 0
        moments = [
            do.polls.next_due,
            do.hooks.next_due(),
            do.nodes.query.not_before if do.nodes.query.is_failing else None,
            do.comparison.next_due() if do.polls.polled else None,
        ]
        return max(min(moment for moment in moments if moment is not None) - time.monotonic(), 0)

    def _handle_items(self, wait: float) -> None:
        for item in self._inbox.pop_all(wait):
            if isinstance(item, HookEvent):
                self.activities.hooks.add(item)
            elif isinstance(item, RunningRows):
                self.activities.comparison.add(item)
            elif isinstance(item, Reload) and self.activities.reloading.attempt():
                self.activities.polls.next_due = 0.0
