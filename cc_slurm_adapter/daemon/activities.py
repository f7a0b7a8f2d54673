"""What the main loop does beside hook lookups: polls, nodes, catch-up, comparison, upkeep, reloads.

Only the main thread uses them. Each has its own retries: a failure in one does not delay the others.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.daemon.hook_lookups import HookLookups
from cc_slurm_adapter.daemon.state_files import LastRun
from cc_slurm_adapter.daemon.systemd import reloading
from cc_slurm_adapter.jobs.watch import JobWatch
from cc_slurm_adapter.log import NOTICE, Reminder, Repeated
from cc_slurm_adapter.model import NodeState
from cc_slurm_adapter.outbox.clock_step import Ages
from cc_slurm_adapter.outbox.outbox import KEEP_DONE, Outbox
from cc_slurm_adapter.outbox.parking import MAX_AGE, Tidied
from cc_slurm_adapter.outbox.report import Parked
from cc_slurm_adapter.sinks.base import RunningRows
from cc_slurm_adapter.system import backoff
from cc_slurm_adapter.system.backoff import RetriedStep
from cc_slurm_adapter.system.grouped_lines import GroupedLines
from cc_slurm_adapter.system.outages import Outages, kind_of
from cc_slurm_adapter.system.quantities import counted

log = logging.getLogger(__name__)

TICK = 1.0
"""The most seconds that the main thread waits before it checks the other threads and feeds the watchdog."""
TIDY_EVERY = 600.0
LOG_PARKED_EVERY = 86400.0
"""Seconds between two lists of why messages are parked. An administrator must act, and may have missed the first line.
"""
MAX_REASONS = 20
"""The most reasons why messages are parked that are logged, each in a line."""


@dataclass(frozen=True)
class LoopSettings:
    """The settings of the main loop. Times are in seconds, `catch_up_from` in Unix seconds."""

    cluster: str
    poll_interval: float
    max_span: int
    max_tries: int
    catch_up_from: int
    query_delay: float
    """The longest time that a hook event waits for the first lookup of its job."""
    parked_max_age: int = MAX_AGE


class Timing(NamedTuple):
    """How long the main loop and its activities wait, in seconds."""

    tick: float = TICK
    """The most that the main loop waits for something to do."""
    soonest_poll: float = 5.0
    """From a poll that failed to the next one, if a hook event shows that slurmctld is back."""
    retries: backoff.Timing = backoff.TIMING
    """Of each activity that failed."""


TIMING = Timing()


class Senders(Protocol):
    """What the main loop needs from those that send."""

    def post_nodes(self, cluster: str, nodes: list[NodeState]) -> None: ...
    def retry_now(self) -> None: ...


class Polls:
    """Reads all of slurmctld's jobs every `interval` seconds.

    After a poll Slurm has a rest for as long as the poll took, but at most for `interval` seconds.
    """

    def __init__(
        self,
        watch: JobWatch,
        hooks: HookLookups,
        interval: float,
        *,
        timing: Timing = TIMING,
        outages: Outages | None = None,
    ) -> None:
        self._watch = watch
        self._hooks = hooks
        self._interval = interval
        self._soonest = timing.soonest_poll
        self._clock = timing.retries.clock
        self.step = RetriedStep("asking slurmctld for all jobs", timing=timing.retries, outages=outages)
        self._slow_polls = Reminder(self._clock)
        self._began = 0.0
        self.next_due = 0.0
        """When the next poll is due, by the clock; 0 if it is due immediately."""
        self.polled = False
        """Whether all jobs were read since the start."""

    def change_interval(self, interval: float) -> None:
        """Poll every `interval` seconds from now on."""
        self._interval = interval
        self.next_due = min(self.next_due, self._clock() + interval)

    def is_due(self) -> bool:
        """Return whether the next poll is due now."""
        return self._clock() >= self.next_due

    def expedite(self) -> None:
        """Let the next poll begin soon after the one that failed, if not sooner."""
        self.next_due = min(self.next_due, self._began + self._soonest)

    def attempt(self, between: Callable[[], None]) -> bool:
        """Poll, and call `between` between the queries, which are many after a long absence. Return False if it failed.

        `between` may set `next_due` to 0 meanwhile, after a SIGHUP: then another poll follows immediately.
        """
        is_first, hook_seconds = not self.polled, self._hooks.seconds
        began = self._began = self._clock()
        self.next_due = began + self._interval
        has_worked = self.step.attempt(lambda: self._read(between))
        if not has_worked:
            self.next_due = min(self.next_due, self.step.not_before)
        elapsed = self._clock() - began - (self._hooks.seconds - hook_seconds)
        if self.next_due:
            self.next_due = max(self.next_due, self._clock() + min(elapsed, self._interval))
        if has_worked:
            self._warn_if_slow(elapsed, is_first=is_first)
        return has_worked

    def _read(self, between: Callable[[], None]) -> None:
        for _ in self._watch.poll():
            between()
        self.polled = True

    def _warn_if_slow(self, elapsed: float, *, is_first: bool) -> None:
        if elapsed <= self._interval:
            self._slow_polls.over()
        elif not is_first and self._slow_polls.is_due():
            log.warning(
                "a poll took %.0f s, but slurmPollInterval is %.0f s: polls come less often. Set it longer, or see"
                " what keeps slurmctld busy (sdiag)%s",
                elapsed,
                self._interval,
                self._slow_polls.note,
            )


class NodeReports:
    """Reads Slurm's nodes, and passes their states to the destinations."""

    def __init__(
        self,
        cluster: str,
        watch: JobWatch,
        senders: Senders,
        *,
        timing: Timing = TIMING,
        outages: Outages | None = None,
    ) -> None:
        self._cluster = cluster
        self._watch = watch
        self._senders = senders
        self._clock = timing.retries.clock
        self.query = RetriedStep("asking for the nodes", timing=timing.retries, outages=outages, proves=True)
        self._report = RetriedStep("reporting the states of the nodes", timing=timing.retries, outages=outages)
        self.words: Mapping[tuple[str, ...], int] = {}
        """How many nodes Slurm gave which words when it was last asked. Replaced as a whole, so any thread may read it.
        """

    def read(self) -> bool:
        """Read the nodes. Return whether that was done. After a failure the query waits at least as long as it took."""
        began = self._clock()
        if not self.query.may_run():
            return False
        has_worked = self.query.attempt(self._watch.read_nodes)
        if not has_worked:
            now = self._clock()
            self.query.not_before = max(self.query.not_before, now + now - began)
        return has_worked

    def report(self) -> None:
        """Send what was read, with the jobs that are known to run on each node."""
        self._report.attempt(self._send)

    def _send(self) -> None:
        nodes = self._watch.node_states()
        self.words = Counter(node.states for node in nodes)
        self._senders.post_nodes(self._cluster, nodes)


class CatchUp:
    """Reads accounting after each poll, a step at a time, so that hook events are served in between.

    When all of it was read, and slurmctld had answered before, the time of the poll is written to lastRunPath.
    """

    def __init__(  # noqa: PLR0913 - the parts it serves, and how often
        self,
        watch: JobWatch,
        outbox: Outbox,
        last_run: LastRun,
        since: int,
        interval: float,
        *,
        timing: Timing = TIMING,
        outages: Outages | None = None,
    ) -> None:
        """`since` is the Unix time from which accounting is read; `interval` is slurmPollInterval."""
        self._watch = watch
        self._outbox = outbox
        self._last_run = last_run
        self._since = since
        self._interval = interval
        self._clock = timing.retries.clock
        self.step = RetriedStep("reading accounting", timing=timing.retries, outages=outages)
        self._noting = RetriedStep("writing the time of the last poll", timing=timing.retries, outages=outages)
        self._steps: Iterator[int] | None = None
        self._next_without_poll = 0.0
        self._polled_at = 0.0
        self._slurmctld_answered = False

    @property
    def is_under_way(self) -> bool:
        """Whether there is more to read immediately."""
        return self._steps is not None

    @property
    def read_until(self) -> int:
        """Unix time up to which accounting was read."""
        return self._since

    def change_interval(self, interval: float) -> None:
        """Put another slurmPollInterval in force."""
        self._interval = interval
        self._next_without_poll = min(self._next_without_poll, self._clock() + interval)

    def begin(self, polled_at: float, *, has_jobs: bool) -> None:
        """Begin after a poll that began at `polled_at` (Unix time). `has_jobs` says that the poll was answered.

        While slurmctld does not answer, polls come more often, but accounting is still read only once in an interval.
        """
        now = self._clock()
        if self._steps is None and self.step.may_run() and (has_jobs or now >= self._next_without_poll):
            self._next_without_poll = now + self._interval
            self._polled_at, self._slurmctld_answered = polled_at, has_jobs
            self._steps = self._watch.catch_up(self._since)

    def begin_again(self) -> None:
        """Begin without another poll after a failure, or when there was no room, once the wait is over."""
        if self._steps is None and (self.step.is_failing or self.step.is_waiting) and self.step.may_run():
            self._steps = self._watch.catch_up(self._since)

    def next_due(self) -> float | None:
        """Return when it is tried again whether there is room for more messages; None if it does not wait for that."""
        return self.step.not_before if self._steps is None and self.step.is_waiting else None

    def attempt_step(self) -> None:
        """Read the next step, if there is one."""
        if self.step.is_waiting:
            self.begin_again()
        if self._steps is not None:
            self.step.attempt(self._read_step)

    def _read_step(self) -> bool:
        """Read the next step. Return False if there is more to read."""
        steps, self._steps = self._steps, None
        for until in steps or ():
            self._since = until
            self._steps = steps
            return False
        self._since = int(self._polled_at)
        if self._slurmctld_answered and self._outbox.is_durable:
            self._noting.attempt(lambda: self._last_run.write(self._polled_at))
        return True


class Comparison:
    """Compares what cc-backend believes to be running with what is known, for each list that comes."""

    def __init__(self, watch: JobWatch, *, timing: Timing = TIMING, outages: Outages | None = None) -> None:
        self._watch = watch
        self._rows: RunningRows | None = None
        self.step = RetriedStep("comparing with cc-backend", timing=timing.retries, outages=outages)

    def add(self, rows: RunningRows) -> None:
        """Add a list. It replaces one that was not compared yet."""
        self._rows = rows

    def next_due(self) -> float | None:
        """Return when the next attempt is due, by the clock; None while there is nothing to compare."""
        return None if self._rows is None else self.step.not_before

    def attempt(self) -> None:
        """Compare, unless the last attempt failed just now."""
        if self._rows is not None and self.step.may_run():
            self.step.attempt(self._reconcile)

    def _reconcile(self) -> None:
        if self._rows is not None:
            self._watch.reconcile(self._rows)
        self._rows = None


class _TidyLines:
    """Logs which messages were too old."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._too_late, self._too_late_lines = 0, Repeated(clock)
        self._given_up_lines = GroupedLines(log, clock)

    def log(self, tidied: Tidied) -> None:
        """Log what was too old now, and how much there was that was not logged before, if that is due."""
        self._log_too_late(tidied.parked)
        for parked in tidied.given_up:
            self._log_given_up(parked)
        self._given_up_lines.report_due()

    def _log_too_late(self, parked: int) -> None:
        """Log how many messages have just become too old. While a destination is away there are some every time."""
        self._too_late += parked
        if parked and self._too_late_lines.is_due():
            messages = counted(self._too_late, "message")
            log.warning("%s could not be delivered for too long: parked, and tried again later", messages)
            self._too_late = 0

    def _log_given_up(self, parked: Parked) -> None:
        what = "refused for longer than parkedMaxAge and given up"
        more = f"more messages {what}: for {parked.sink}, the first of {parked.first}: {parked.reason}"
        kind = f"{parked.sink} {kind_of(parked.reason)}"
        self._given_up_lines.report(what, kind, f"{what}: {parked}", lambda: more, count=parked.messages)


class Upkeep:
    """Tidies the state file every ten minutes, and logs once a day why messages are parked.

    As often it looks at what may expire.
    """

    def __init__(  # noqa: PLR0913 - the parts that it uses
        self,
        settings: LoopSettings,
        watch: JobWatch,
        outbox: Outbox,
        counters: Counters,
        look_at_token: Callable[[], None] = lambda: None,
        *,
        timing: Timing = TIMING,
        outages: Outages | None = None,
    ) -> None:
        self._settings = settings
        self._watch = watch
        self._outbox = outbox
        self._counters = counters
        self._look_at_token = look_at_token
        self._clock = timing.retries.clock
        self._ages = Ages(_longest_age(settings))
        self.step = RetriedStep("tidying the state file", timing=timing.retries, outages=outages)
        self._next = 0.0
        self._next_parked_lines = self._clock() + LOG_PARKED_EVERY
        self._lines = _TidyLines(self._clock)

    def use(self, settings: LoopSettings) -> None:
        """Put other settings in force, and tidy by them soon."""
        self._settings = settings
        self._ages.longest = _longest_age(settings)
        self._next = 0.0

    def attempt(self) -> None:
        """Tidy, if it is time."""
        if self._clock() >= self._next:
            self._next = self._clock() + TIDY_EVERY
            self.step.attempt(self.tidy)
            self._look_at_token()

    def tidy(self) -> None:
        """Park, give up and forget what is too old. Raises StateError."""
        settings, ages_are_right = self._settings, self._ages.are_right()
        tidied = self._outbox.tidy(settings.max_span, settings.parked_max_age, ages_are_right=ages_are_right)
        for parked in tidied.given_up:
            self._counters.count("parked_given_up", parked.messages)
        self._lines.log(tidied)
        if self._clock() >= self._next_parked_lines:
            self._next_parked_lines = self._clock() + LOG_PARKED_EVERY
            log_parked(self._outbox.parked_by_reason())
        if ages_are_right:
            self._outbox.forget_other_clusters(settings.cluster, settings.max_span)
            self._watch.forget_never_started(settings.max_span)


def _longest_age(settings: LoopSettings) -> float:
    return max(settings.max_span + KEEP_DONE, settings.parked_max_age)


class Reloading:
    """Reads the configuration again, and retries all that was refused or given up.

    Whoever asks for that has changed the configuration, or has repaired something.
    """

    def __init__(  # noqa: PLR0913 - the parts that it uses
        self,
        watch: JobWatch,
        outbox: Outbox,
        senders: Senders,
        read_config: Callable[[str], None] = lambda by: None,
        *,
        timing: Timing = TIMING,
        outages: Outages | None = None,
    ) -> None:
        """`read_config` reads the configuration again for somebody, and puts in force what has changed."""
        self._watch = watch
        self._outbox = outbox
        self._senders = senders
        self._read_config = read_config
        self._reading = RetriedStep("reading the configuration again", timing=timing.retries)
        self._step = RetriedStep("trying everything again", timing=timing.retries, outages=outages)

    def attempt(self, by: str) -> bool:
        """Read the configuration and retry everything, for whoever is named. Return False if the retry failed."""
        with reloading():
            self._reading.attempt(lambda: self._read_config(by))
            return self._step.attempt(lambda: self._retry(by))

    def _retry(self, by: str) -> None:
        log.log(
            NOTICE,
            "%s: trying %d parked messages again, one of each reason first, the others when it is accepted",
            by,
            self._outbox.retry_all(),
        )
        self._watch.forget_broken()
        self._senders.retry_now()


def log_parked(reasons: Sequence[Parked]) -> None:
    """Log why messages are parked, a line for each reason."""
    for parked in reasons[:MAX_REASONS]:
        log.warning("parked: %s", parked)
    if len(reasons) > MAX_REASONS:
        log.warning("parked: %s", counted(len(reasons) - MAX_REASONS, "more reason"))
