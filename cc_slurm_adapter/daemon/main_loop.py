"""What the daemon does while it lives: hook events at once, a pass every slurmPollInterval, accounting in steps."""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Callable, Protocol, Union

from cc_slurm_adapter.counters import Status
from cc_slurm_adapter.daemon.hook_coverage import HookCoverage
from cc_slurm_adapter.daemon.state_files import LastRun
from cc_slurm_adapter.daemon.systemd import tell_status
from cc_slurm_adapter.hooks.pending_events import MAX_WAITING, PendingEvents
from cc_slurm_adapter.jobs.watch import JobWatch
from cc_slurm_adapter.log import NOTICE, Reminder
from cc_slurm_adapter.model import HookEvent, NodeState
from cc_slurm_adapter.outbox import parking
from cc_slurm_adapter.outbox.clock_step import Ages
from cc_slurm_adapter.outbox.outbox import KEEP_DONE, Outbox
from cc_slurm_adapter.outbox.parking import Parked
from cc_slurm_adapter.sinks.base import RunningRows
from cc_slurm_adapter.system.backoff import RetriedStep

log = logging.getLogger(__name__)

TIDY_EVERY = 600.0
TELL_PARKED_EVERY = 86400.0
MAX_REASONS = 20
"""Reasons why messages are parked, each with a line, at most."""
SOONEST_POLL = 5.0
"""Seconds from a poll that failed to the next, when a hook event tells that Slurm is there."""
TICK = 1.0
"""Seconds that the main thread waits at most before it looks at the others and feeds the watchdog."""
REST = 0.2
"""Seconds between two looks for a stop, while the loop rests after an error that nobody thought of."""
TELL_EVERY = 3600.0
"""Seconds between two lines that say how it stands, whatever happens."""
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
        self._reload_waits = False
        """Of many SIGHUPs one is enough."""

    def put(self, item: Item) -> None:
        """Tell it; may be called by a signal handler."""
        if isinstance(item, HookEvent) and self._items.qsize() >= 2 * MAX_WAITING:
            self._status.count("hook_events_left_to_polls")
        elif not (isinstance(item, Reload) and self._reload_waits):
            self._reload_waits = self._reload_waits or isinstance(item, Reload)
            self._items.put(item)

    def take(self, wait: float) -> list[Item]:
        """All that has come; waits up to so many seconds for something."""
        taken: list[Item] = []
        with contextlib.suppress(queue.Empty):
            taken.append(self._items.get(timeout=wait) if wait > 0 else self._items.get_nowait())
            taken += [self._items.get_nowait() for _ in range(self._items.qsize())]  # not more: others come meanwhile
        if any(isinstance(item, Reload) for item in taken):
            self._reload_waits = False
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
    query_delay: float
    """How long a hook event waits at most for the first question about its job."""
    parked_max_age: int = parking.MAX_AGE


class MainLoop:
    """Runs in the main thread until `stop()`.

    Each thing that it does is an activity of its own: what fails is said, waits for itself, and stops no other.
    """

    def __init__(  # noqa: PLR0913 - the parts it drives
        self,
        inbox: Inbox,
        watch: JobWatch,
        destinations: Destinations,
        outbox: Outbox,
        last_run: LastRun,
        status: Status,
        settings: LoopSettings,
        coverage: HookCoverage | None = None,
        pulse: Callable[[], None] = lambda: None,
    ) -> None:
        """`pulse` is called at least once a second while the loop waits, and between the steps of its work."""
        self._pulse = pulse
        self._inbox = inbox
        self._watch = watch
        self._destinations = destinations
        self._outbox = outbox
        self._last_run = last_run
        self._status = status
        self._settings = settings
        self._coverage = coverage
        self._hooks = PendingEvents(settings.max_tries, settings.query_delay, watch.reads_all_jobs)
        self._turning = RetriedStep("a turn of the main loop", LONGEST_HOOK_RETRY)
        self._serving = RetriedStep("serving hook events", LONGEST_HOOK_RETRY)
        self._asking_nodes = RetriedStep("asking for the nodes")
        self._telling_nodes = RetriedStep("telling how the nodes stand")
        self._polling = RetriedStep("asking slurmctld for all jobs")
        asking = (self._asking_nodes, self._polling)
        for each in (*asking, self._serving):  # when slurmctld is away that is one trouble, and one line
            each.beside = asking
        self._accounting = RetriedStep("reading accounting")
        self._noting = RetriedStep("noting the time of this pass")
        self._comparing = RetriedStep("comparing with cc-backend")
        self._tidying = RetriedStep("tidying the state file")
        self._summing_up = RetriedStep("summing up")
        self._reloading = RetriedStep("reloading")
        self._slow_polls = Reminder()
        self._hook_seconds = 0.0
        """Of the poll under way, spent on hook events."""
        self._stopping = False
        self._poll_began = 0.0
        self._next_poll = 0.0
        self._catch_up_from = settings.catch_up_from
        self._catching_up: Iterator[int] | None = None
        self._next_catch_up = 0.0
        self._pass_began = 0.0
        self._pass_is_whole = False
        """Whether slurmctld has answered in it."""
        self._running_rows: RunningRows | None = None
        self._next_tidying = 0.0
        self._ages = Ages(max(settings.max_span + KEEP_DONE, settings.parked_max_age))
        self._next_parked_lines = time.monotonic() + TELL_PARKED_EVERY
        self._said = self._told = ""
        self._next_telling = time.monotonic() + TELL_EVERY
        self.polled = False
        """Whether a whole pass over slurmctld has been made."""

    def stop(self) -> None:
        """End it as soon as the step under way is over; may be called by a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Until the stop."""
        while not self._stopping:
            if self._turning.may_run():
                self._turning.attempt(self._turn)
            else:
                time.sleep(REST)

    def _turn(self) -> None:
        """Wait a second at most for something to do, and do it."""
        self._pulse()
        self._take_items(min(self._seconds_to_wait(), TICK))
        if self._has_due_hooks() and self._serving.attempt(self._serve_hooks) and self._polling.is_failing:
            self._next_poll = min(self._next_poll, self._poll_began + SOONEST_POLL)  # Slurm may answer again
        if time.monotonic() >= self._next_poll:
            self._pass()
        elif self._asking_nodes.is_failing and self._ask_for_nodes():
            self._tell_nodes()
        if self._catching_up is not None:
            self._accounting.attempt(self._catch_up_a_step)
        # Not before it is known what runs: else all of cc-backend's rows seem stale, and Slurm is asked about each.
        if self._running_rows is not None and self.polled and self._comparing.may_run():
            self._comparing.attempt(self._reconcile)

    def _pass(self) -> None:
        """All that is done every slurmPollInterval. The nodes come first: their layouts number the cores of runs."""
        began = time.time()
        has_nodes = self._ask_for_nodes()
        has_jobs = self._poll_in_time()
        if self._stopping:
            return
        if has_nodes:
            self._tell_nodes()
        if time.monotonic() >= self._next_tidying:
            self._next_tidying = time.monotonic() + TIDY_EVERY
            self._tidying.attempt(self._tidy)
        self._summing_up.attempt(self._say_how_it_stands)
        self._tell_status()
        self._begin_to_catch_up(began, has_jobs=has_jobs)

    def _ask_for_nodes(self) -> bool:
        """Whether they are known anew. A question that failed rests at least as long as it took."""
        began = time.monotonic()
        if not self._asking_nodes.may_run():
            return False
        has_worked = self._asking_nodes.attempt(self._watch.read_nodes)
        if not has_worked:
            now = time.monotonic()
            self._asking_nodes.not_before = max(self._asking_nodes.not_before, now + now - began)
        return has_worked

    def _tell_nodes(self) -> None:
        self._telling_nodes.attempt(
            lambda: self._destinations.post_nodes(self._settings.cluster, self._watch.node_states())
        )

    def _poll_in_time(self) -> bool:
        """Between two polls Slurm has as long a rest as the first of them took, and slurmPollInterval at most.

        Whether it has answered.
        """
        interval, is_first = self._settings.poll_interval, not self.polled
        began = self._poll_began = time.monotonic()
        self._next_poll, self._hook_seconds = began + interval, 0.0
        has_worked = self._polling.attempt(self._poll)
        self._tell_status()
        if not has_worked:
            self._next_poll = min(self._next_poll, self._polling.not_before)
        took = time.monotonic() - began - self._hook_seconds
        if self._next_poll:  # else SIGHUP came, and the next one is due
            self._next_poll = max(self._next_poll, time.monotonic() + min(took, interval))
        if not has_worked:
            return False
        if took <= interval:
            self._slow_polls.over()
        elif not is_first and self._slow_polls.is_due():
            log.warning(
                "a poll took %.0f s, but slurmPollInterval is %.0f s: polls come less often. Set it longer, or see"
                " what keeps slurmctld busy (sdiag)",
                took,
                interval,
            )
        return True

    def _has_due_hooks(self) -> bool:
        moment = self._hooks.next_due()
        return self._serving.may_run() and moment is not None and time.monotonic() >= moment

    def _seconds_to_wait(self) -> float:
        if self._catching_up is not None:
            return 0
        moments = [self._next_poll]
        next_hook = self._hooks.next_due()
        if next_hook is not None:
            moments.append(max(next_hook, self._serving.not_before))
        if self._asking_nodes.is_failing:
            moments.append(self._asking_nodes.not_before)
        if self._running_rows is not None and self.polled:
            moments.append(self._comparing.not_before)
        return max(min(moments) - time.monotonic(), 0)

    def _take_items(self, wait: float) -> None:
        for item in self._inbox.take(wait):
            if isinstance(item, HookEvent):
                self._status.count("hook_events")
                if self._coverage is not None:
                    self._coverage.announced(item.job_id)
                if not self._hooks.add(item, time.monotonic()):
                    self._status.count("hook_events_left_to_polls")
            elif isinstance(item, Reload):
                self._reloading.attempt(self._reload)
            elif isinstance(item, RunningRows):
                self._running_rows = item

    def _reload(self) -> None:
        log.log(
            NOTICE,
            "SIGHUP: trying %d parked messages again, one of each reason first, the others when it is taken",
            self._outbox.retry_all(),
        )
        self._watch.forget_broken()
        self._destinations.retry_now()
        self._next_poll = 0.0

    def _serve_hooks(self) -> bool:
        """Ask about the jobs whose events are due. False when there was nothing to ask."""
        began = time.monotonic()
        job_ids = self._hooks.due(began, lambda event: self._watch.is_known(event.job_id, over=event.is_end))
        if not job_ids:
            return False
        try:
            known = self._watch.look_up(job_ids)
        except Exception:
            self._hooks.failed(job_ids, began, time.monotonic())
            raise
        self._hooks.looked_up(
            job_ids,
            began,
            time.monotonic(),
            lambda event: self._watch.is_settled(event.job_id, over=event.is_end),
            known,
        )
        return True

    def _poll(self) -> None:
        """Hook events are served between its questions, which are many after a long absence."""
        for _ in self._watch.poll():
            self._pulse()
            self._take_items(0)
            if self._has_due_hooks():
                began_hooks = time.monotonic()
                self._serving.attempt(self._serve_hooks)
                self._hook_seconds += time.monotonic() - began_hooks
        self.polled = True

    def _begin_to_catch_up(self, began: float, *, has_jobs: bool) -> None:
        """After each poll that was answered; while slurmctld does not answer, once in a slurmPollInterval."""
        now = time.monotonic()
        if self._catching_up is None and self._accounting.may_run() and (has_jobs or now >= self._next_catch_up):
            self._next_catch_up = now + self._settings.poll_interval
            self._pass_began, self._pass_is_whole = began, has_jobs
            self._catching_up = self._watch.catch_up(self._catch_up_from)

    def _say_how_it_stands(self) -> None:
        """Once an hour, and for whoever wants to know more after each pass in which anything has happened."""
        if self._coverage is not None:
            self._coverage.log_missed()
        waiting = self._outbox.waiting()
        line = f"open runs: {self._watch.open_runs}; waiting messages: {waiting}; since the start: {self._status}"
        if time.monotonic() >= self._next_telling:
            self._next_telling = time.monotonic() + TELL_EVERY
            log.log(NOTICE, "%s", line)
        elif line != self._said:
            log.info("%s", line)
        self._said = line

    def _tell_status(self) -> None:
        """For systemd: what it waits for, and how it stands."""
        waits = "waiting for slurmctld, which does not answer; " if self._polling.is_failing else ""
        status = waits + self._said
        if status != self._told:
            self._told = status
            tell_status(status)

    def _tidy(self) -> None:
        ages_are_right = self._ages.are_right()
        tidied = self._outbox.tidy(
            self._settings.max_span, self._settings.parked_max_age, ages_are_right=ages_are_right
        )
        if tidied.parked:
            log.warning(
                "%d messages could not be delivered for too long: they are parked and tried later", tidied.parked
            )
        for parked in tidied.given_up:
            self._status.count("parked_given_up", parked.messages)
            log.warning("refused for longer than parkedMaxAge and given up: %s", parked)
        if time.monotonic() >= self._next_parked_lines:
            self._next_parked_lines = time.monotonic() + TELL_PARKED_EVERY
            log_parked(self._outbox.parked_by_reason())
        if ages_are_right:
            self._outbox.forget_other_clusters(self._settings.cluster, self._settings.max_span)
            self._watch.forget_never_started(self._settings.max_span)

    def _catch_up_a_step(self) -> bool:
        """Read some more of accounting. At the end of it True is returned, and the pass is complete if slurmctld has
        answered in it.
        """
        steps, self._catching_up = self._catching_up, None
        for until in steps or ():
            self._catch_up_from = until
            self._catching_up = steps
            return False
        self._catch_up_from = int(self._pass_began)
        if self._pass_is_whole and self._outbox.is_durable:
            self._noting.attempt(lambda: self._last_run.write(self._pass_began))
        return True

    def _reconcile(self) -> None:
        if self._running_rows is not None:
            self._watch.reconcile(self._running_rows)
        self._running_rows = None


def log_parked(reasons: Sequence[Parked]) -> None:
    """A line for each reason why messages are parked."""
    for parked in reasons[:MAX_REASONS]:
        log.warning("parked: %s", parked)
    if len(reasons) > MAX_REASONS:
        log.warning("parked: %d more reasons", len(reasons) - MAX_REASONS)
