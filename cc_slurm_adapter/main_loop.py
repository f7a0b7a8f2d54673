"""What the daemon does while it lives: hook events at once, a pass every slurmPollInterval, accounting in steps."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, Union

from cc_slurm_adapter.activity import Activity
from cc_slurm_adapter.errors import AdapterError
from cc_slurm_adapter.hook_queue import MAX_WAITING, HookQueue
from cc_slurm_adapter.job import HookEvent, NodeState
from cc_slurm_adapter.job_watch import JobWatch
from cc_slurm_adapter.log import Reminder
from cc_slurm_adapter.outbox import Outbox
from cc_slurm_adapter.sinks import RunningRows
from cc_slurm_adapter.state_files import LastRun
from cc_slurm_adapter.status import Status

log = logging.getLogger(__name__)

TIDY_EVERY = 600.0
SOONEST_POLL = 5.0
"""Seconds from a poll that failed to the next, when a hook event tells that Slurm is there."""
LONGEST_HOOK_REST, MANY_HOOKS = 0.2, 50
"""Seconds at most between two looks for hook events, which rest as long as the last one took: so that the events of a
burst come together, since a look at a few jobs costs Slurm nearly as much as one at many. Not when there were many."""
LONGEST_HOOK_RETRY = 5.0
"""Seconds: a hook event shortens the wait for a Slurm that does not answer."""


class Stop:
    """SIGTERM or SIGINT came."""


class Reload:
    """SIGHUP came."""


@dataclass(frozen=True)
class ClusterNames:
    """The clusters that the destination knows, asked for at the start; empty when it gave no answer."""

    names: tuple[str, ...]


class Inbox:
    """What threads and signal handlers tell the main thread. A flood of hook events must not fill the memory."""

    def __init__(self, status: Status) -> None:
        self._items: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._status = status

    def put(self, item: Item) -> None:
        """Tell it; may be called by a signal handler."""
        if isinstance(item, HookEvent) and self._items.qsize() >= 2 * MAX_WAITING:
            self._status.count("hook_events_left_to_polls")
        else:
            self._items.put(item)

    def take(self, wait: float) -> list[Item]:
        """All that has come; waits up to so many seconds for something."""
        taken: list[Item] = []
        try:
            taken.append(self._items.get(timeout=wait) if wait > 0 else self._items.get_nowait())
            while True:
                taken.append(self._items.get_nowait())
        except queue.Empty:
            return taken


Item = Union[HookEvent, Stop, Reload, ClusterNames, RunningRows]


class Destinations(Protocol):
    """What the loop tells those that send."""

    def post_nodes(self, cluster: str, nodes: list[NodeState]) -> None: ...
    def retry_now(self) -> None: ...


@dataclass(frozen=True)
class LoopSettings:
    """Times in seconds; `catch_up_from` in Unix seconds."""

    cluster: str
    poll_interval: float
    max_span: int
    max_tries: int
    catch_up_from: int


class MainLoop:
    """Runs in the main thread until `stop()`."""

    def __init__(  # noqa: PLR0913 - the parts it drives
        self,
        inbox: Inbox,
        watch: JobWatch,
        destinations: Destinations,
        outbox: Outbox,
        last_run: LastRun,
        status: Status,
        settings: LoopSettings,
    ) -> None:
        self._inbox = inbox
        self._watch = watch
        self._destinations = destinations
        self._outbox = outbox
        self._last_run = last_run
        self._status = status
        self._settings = settings
        self._hooks = HookQueue(settings.max_tries)
        self._serving = Activity("serving hook events", LONGEST_HOOK_RETRY)
        self._polling = Activity("asking slurmctld for all jobs")
        self._accounting = Activity("reading accounting")
        self._comparing = Activity("comparing with cc-backend")
        self._reloading = Activity("reloading")
        self._next_look = 0.0
        """time.monotonic() of the next look for hook events."""
        self._slow_polls = Reminder()
        self._hook_seconds = 0.0
        """Of the poll under way, spent on hook events."""
        self._stopping = False
        self._poll_began = 0.0
        self._next_poll = 0.0
        self._catch_up_from = settings.catch_up_from
        self._catching_up: Iterator[int] | None = None
        self._pass_began = 0.0
        self._running_rows: RunningRows | None = None
        self._next_tidying = 0.0
        self._said = ""
        self.polled = False
        """Whether a whole pass over slurmctld has been made."""

    def stop(self) -> None:
        """End it as soon as the step under way is over; may be called by a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Until the stop."""
        while not self._stopping:
            self._take_items(self._seconds_to_wait())
            if self._has_due_hooks() and self._serving.attempt(self._serve_hooks) and self._polling.is_failing:
                self._next_poll = min(self._next_poll, self._poll_began + SOONEST_POLL)  # Slurm may answer again
            if time.monotonic() >= self._next_poll:
                self._poll_in_time()
            if self._catching_up is not None:
                self._accounting.attempt(self._catch_up_a_step)
            if self._running_rows is not None and self.polled and self._comparing.may_run():
                self._comparing.attempt(self._reconcile)

    def _poll_in_time(self) -> None:
        """Between two polls Slurm has as long a rest as the first of them took, and slurmPollInterval at most."""
        interval, is_first = self._settings.poll_interval, not self.polled
        began = self._poll_began = time.monotonic()
        self._next_poll, self._hook_seconds = began + interval, 0.0
        has_worked = self._polling.attempt(self._poll)
        if not has_worked:
            self._next_poll = min(self._next_poll, self._polling.not_before)
        took = time.monotonic() - began - self._hook_seconds
        if self._next_poll:  # else SIGHUP came, and the next one is due
            self._next_poll = max(self._next_poll, time.monotonic() + min(took, interval))
        if not has_worked:
            return
        if took <= interval:
            self._slow_polls.over()
        elif not is_first and self._slow_polls.is_due():
            log.warning(
                "a poll took %.0f s, but slurmPollInterval is %.0f s: polls come less often. Set it longer, or see"
                " what keeps slurmctld busy (sdiag)",
                took,
                interval,
            )

    def _has_due_hooks(self) -> bool:
        now = time.monotonic()
        return self._serving.may_run() and now >= self._next_look and bool(self._hooks.due(now))

    def _seconds_to_wait(self) -> float:
        if self._catching_up is not None:
            return 0
        moments = [self._next_poll]
        next_hook = self._hooks.next_due()
        if next_hook is not None:
            moments.append(max(next_hook, self._serving.not_before, self._next_look))
        if self._running_rows is not None and self.polled:
            moments.append(self._comparing.not_before)
        return max(min(moments) - time.monotonic(), 0)

    def _take_items(self, wait: float) -> None:
        for item in self._inbox.take(wait):
            if isinstance(item, HookEvent):
                self._status.count("hook_events")
                if not self._hooks.add(item, time.monotonic()):
                    self._status.count("hook_events_left_to_polls")
            elif isinstance(item, Reload):
                self._reloading.attempt(self._reload)
            elif isinstance(item, RunningRows):
                self._running_rows = item

    def _reload(self) -> None:
        log.warning("SIGHUP: trying %d parked messages again", self._outbox.retry_all())
        self._watch.forget_broken()
        self._destinations.retry_now()
        self._next_poll = 0.0

    def _serve_hooks(self) -> None:
        began = time.monotonic()
        job_ids = self._hooks.due(began)
        if job_ids:
            try:
                known = self._watch.look_at(job_ids)
            except AdapterError:
                self._hooks.failed(job_ids, time.monotonic())
                raise
            self._hooks.looked_at(
                job_ids, time.monotonic(), lambda event: self._watch.is_settled(event.job_id, over=event.is_end), known
            )
            now = time.monotonic()
            self._next_look = now + min(now - began, LONGEST_HOOK_REST) if len(job_ids) < MANY_HOOKS else now

    def _poll(self) -> None:
        """One pass. Hook events are served between its questions, which are many after a long absence."""
        began = time.time()
        for _ in self._watch.poll():
            self._take_items(0)
            if self._has_due_hooks():
                began_hooks = time.monotonic()
                self._serving.attempt(self._serve_hooks)
                self._hook_seconds += time.monotonic() - began_hooks
        self._destinations.post_nodes(self._settings.cluster, self._watch.node_states())
        self.polled = True
        self._tidy()
        self._say_how_it_stands()
        if self._catching_up is None and self._accounting.may_run():
            self._pass_began = began
            self._catching_up = self._watch.catch_up(self._catch_up_from)

    def _say_how_it_stands(self) -> None:
        """After each pass in which anything has happened."""
        waiting = self._outbox.waiting()
        line = f"open runs: {self._watch.open_runs}; waiting messages: {waiting}; since the start: {self._status}"
        if line != self._said:
            self._said = line
            log.info("%s", line)

    def _tidy(self) -> None:
        if time.monotonic() >= self._next_tidying:
            self._next_tidying = time.monotonic() + TIDY_EVERY
            self._outbox.tidy(self._settings.max_span)
            self._watch.forget_never_started(self._settings.max_span)

    def _catch_up_a_step(self) -> bool:
        """Read some more of accounting. At the end of it the pass is complete, and True is returned."""
        steps, self._catching_up = self._catching_up, None
        for until in steps or ():
            self._catch_up_from = until
            self._catching_up = steps
            return False
        self._catch_up_from = int(self._pass_began)
        if self._outbox.is_durable:
            self._last_run.write(self._pass_began)
        return True

    def _reconcile(self) -> None:
        if self._running_rows is not None:
            self._watch.reconcile(self._running_rows)
        self._running_rows = None
