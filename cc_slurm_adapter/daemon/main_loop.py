"""The order of the daemon's work: hook events when they arrive, a poll every slurmPollInterval, accounting in steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.daemon.activities import (
    TIMING,
    CatchUp,
    Comparison,
    LoopSettings,
    NodeReports,
    Polls,
    Reloading,
    Timing,
    Upkeep,
)
from cc_slurm_adapter.daemon.hook_lookups import HookLookups
from cc_slurm_adapter.daemon.inbox import Inbox, Reload, StopSync
from cc_slurm_adapter.daemon.report import STEPS
from cc_slurm_adapter.daemon.resend_requests import ResendRequest
from cc_slurm_adapter.daemon.resending import Resending
from cc_slurm_adapter.daemon.syncing import Syncing
from cc_slurm_adapter.jobs.report import SyncRequest
from cc_slurm_adapter.model import HookEvent
from cc_slurm_adapter.sinks.base import RunningRows
from cc_slurm_adapter.system.backoff import RetriedStep, StepReport

ACCOUNTING = "accounting"
OF_A_ROUND = ("poll", "nodes", ACCOUNTING)
"""What a single round does, of STEPS."""
REST = 0.2
"""Seconds between two checks for a stop, while the loop rests after an unexpected error."""
EVENTS_LIMIT = 5.0
"""The most seconds that a single round waits for hook events at its end. On a busy cluster there are always some, and
what they announce is in the next poll."""
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
    syncing: Syncing
    resending: Resending | None = None
    """None where nothing can be sent anew."""

    @property
    def _steps(self) -> dict[str, RetriedStep]:
        steps = (
            self.polls.step,
            self.hooks.step,
            self.nodes.query,
            self.catch_up.step,
            self.comparison.step,
            self.upkeep.step,
        )
        return dict(zip(STEPS, steps))

    @property
    def steps(self) -> dict[str, StepReport]:
        """What each of them has done. Any thread may read it."""
        return {name: step.report for name, step in self._steps.items()}

    def use(self, settings: LoopSettings) -> None:
        """Put other settings in force. What waits goes on waiting, and what is under way goes on."""
        self.polls.change_interval(settings.poll_interval)
        self.catch_up.change_interval(settings.poll_interval)
        self.hooks.change_limits(settings.max_tries, settings.query_delay)
        self.upkeep.use(settings)

    def observe(self, counters: Counters) -> None:
        """Count from now on how often each step is done, with which result and how long it takes."""
        for name, step in self._steps.items():
            step.observe = partial(_count_step, counters, name)


def _count_step(counters: Counters, name: str, seconds: float, has_worked: bool) -> None:
    counters.observe("steps", seconds, step=name, result="succeeded" if has_worked else "failed")


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
        self._clock = timing.retries.clock
        self._turning = RetriedStep(
            "a turn of the main loop", timing=timing.retries._replace(longest_retry=LONGEST_REST)
        )
        self._stopping = False
        self._catches_up = True
        """Whether accounting is read after each poll."""
        self._events_until = float("inf")
        """When a single round no longer waits for hook events, by the clock."""

    def stop(self) -> None:
        """End the loop as soon as the step under way is over."""
        self._stopping = True

    def run(self) -> None:
        """Run until `stop` is called."""
        while not self._stopping:
            self._take_turn()

    def run_round(self, is_delivered: Callable[[], bool], wanted: SyncRequest | None = None) -> None:
        """Run until everything was done once, and then wait until all of it is delivered; end sooner after `stop`.

        While it waits it does nothing new, or on a busy cluster there would be no end. If a sync is `wanted`, it takes
        the place of the catch-up.
        """
        if wanted is not None:
            self._catches_up = False
            self.activities.syncing.accept(wanted)
            self.activities.syncing.begin(wanted)
        while not self._stopping and not self._has_done_all():
            self.activities.catch_up.begin_again()
            self._take_turn()
        while not self._stopping and not is_delivered():
            self._pulse()
            time.sleep(REST)

    def undone(self) -> tuple[str, ...]:
        """Return what has not been done since the start, by the names of its steps."""
        steps = self.activities.steps
        wanted = [name for name in OF_A_ROUND if name != ACCOUNTING or self._catches_up]
        return tuple(name for name in wanted if not steps[name].last_success)

    def _has_done_all(self) -> bool:
        """Return whether everything was done, and no hook event waits any more, or only new ones."""
        if self.undone() or self.activities.syncing.report.is_under_way:
            return False
        self._events_until = min(self._events_until, self._clock() + EVENTS_LIMIT)
        return self.activities.hooks.next_due() is None or self._clock() >= self._events_until

    def _take_turn(self) -> None:
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
        self._read_accounting()
        if do.resending:
            do.resending.attempt_step()
        # Not before a poll has shown what runs: else all rows of cc-backend seem stale, and Slurm is asked about each.
        if do.polls.polled:
            do.comparison.attempt()

    def _read_accounting(self) -> None:
        """Read on. One sacct at a time: a sync waits for the catch-up, and that until an hour of the sync is read."""
        do = self.activities
        if not do.syncing.is_reading:
            do.catch_up.attempt_step()
        if do.syncing.is_reading or not do.catch_up.is_under_way:
            do.syncing.attempt_step()

    def _poll(self) -> None:
        """Do what is due every slurmPollInterval. The nodes come first: their layouts number the cores of runs."""
        do, began = self.activities, time.time()
        has_nodes = do.nodes.read()
        has_jobs = do.polls.attempt(self._between_queries)
        if self._stopping:
            return
        if has_nodes:
            do.nodes.report()
        do.upkeep.attempt()
        do.hooks.log_missed()
        if self._catches_up:
            do.catch_up.begin(began, has_jobs=has_jobs)

    def _between_queries(self) -> None:
        """Handle hook events, which do not wait for the end of a poll."""
        self._pulse()
        self._handle_items(0)
        if self.activities.hooks.is_due():
            self.activities.hooks.attempt()

    def _seconds_to_wait(self) -> float:
        do = self.activities
        if do.catch_up.is_under_way or (do.resending and do.resending.is_under_way):
            return 0
        moments = [
            do.syncing.next_due(),
            do.catch_up.next_due(),
            do.polls.next_due,
            do.hooks.next_due(),
            do.nodes.query.not_before if do.nodes.query.is_failing else None,
            do.comparison.next_due() if do.polls.polled else None,
        ]
        return max(min(moment for moment in moments if moment is not None) - self._clock(), 0)

    def _handle_items(self, wait: float) -> None:
        for item in self._inbox.pop_all(wait):
            if isinstance(item, HookEvent):
                self.activities.hooks.add(item)
            elif isinstance(item, RunningRows):
                self.activities.comparison.add(item)
            elif isinstance(item, ResendRequest) and self.activities.resending:
                self.activities.resending.begin(item)
            elif isinstance(item, SyncRequest):
                self.activities.syncing.begin(item)
            elif isinstance(item, StopSync):
                self.activities.syncing.stop()
            elif isinstance(item, Reload) and self.activities.reloading.attempt(item.by):
                self.activities.polls.next_due = 0.0
