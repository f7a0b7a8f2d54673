"""Polls a destination for the jobs that it believes to be running, and hands each list to the main loop.

The same thread asks the destination for its clusters, where somebody wants to know them again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from typing import NamedTuple

from cc_slurm_adapter.errors import SinkError
from cc_slurm_adapter.log import NOTICE
from cc_slurm_adapter.sinks.base import AskableSink, PackedRows, RunningRow, RunningRows
from cc_slurm_adapter.sinks.clusters import ClusterList
from cc_slurm_adapter.system.backoff import Backoff
from cc_slurm_adapter.system.outages import Outages
from cc_slurm_adapter.system.threads import WAIT, Worker

log = logging.getLogger(__name__)

RUNNING_LIST = "the list of running jobs"
"""The part that fails in an outage of the destination."""
SOONEST = 60.0
"""Seconds between two polls that were requested, at least: every stop of an unknown run requests one."""


class Timing(NamedTuple):
    """How long the poller waits, in seconds."""

    first_wait: float = 1.0
    """Between two tries while the destination is away."""
    longest_wait: float = 60.0
    """The most of that: the wait doubles with every try."""
    long_failure: float = 60.0
    """After failures for so long they are logged; mostly whoever sends has logged before that a destination is away."""
    second_poll_after: float = 360.0
    """From a requested poll to the next: runs that were too young to be judged by the first are old enough then."""
    clusters_again: float = 360.0
    """From a failed request for the clusters to the next one."""
    clock: Callable[[], float] = time.monotonic


TIMING = Timing()


class _Failures:
    """Failures of the polls in a row: when to try again, and what is logged."""

    def __init__(self, timing: Timing, outages: Outages) -> None:
        self._timing = timing
        self._outages = outages
        self._backoff = Backoff(timing.first_wait, timing.longest_wait)
        self._since = 0.0

    @property
    def is_failing(self) -> bool:
        """Return whether the last poll failed."""
        return self._backoff.failures > 0

    def failed(self, error: SinkError, began: float) -> float:
        """Log a poll that failed and that began at this time. Return the seconds until the next try."""
        if not self.is_failing:
            self._since = began
            log.info("the list of running jobs cannot be read: %s", error)
        if began - self._since >= self._timing.long_failure:
            note = self._outages.failed(RUNNING_LIST, str(error))
            if note is not None:
                log.warning("the running jobs cannot be compared yet: %s%s", error, note)
        return self._backoff.failed()

    def succeeded(self) -> None:
        """Forget the failures, and log that they are over if they were logged."""
        self._backoff.succeeded()
        note = self._outages.works(RUNNING_LIST, proves=True)
        if note is not None:
            log.log(NOTICE, "the running jobs can be compared again%s", note)


class _ClustersQuestion:
    """Asks the destination for its clusters when that was requested, until it answers."""

    def __init__(self, ask: Callable[[], ClusterList], deliver: Callable[[ClusterList], None], timing: Timing) -> None:
        self._ask = ask
        self._deliver = deliver
        self._timing = timing
        self._requested = threading.Event()
        self._not_before = 0.0
        self._has_failed = False

    def request(self) -> None:
        """Ask soon. Any thread may call this."""
        self._not_before = 0.0
        self._requested.set()

    def attempt(self) -> None:
        """Ask if that was requested."""
        if not self._requested.is_set() or self._timing.clock() < self._not_before:
            return
        self._requested.clear()
        try:
            known = self._ask()
        except SinkError as error:
            self._failed(error)
            return
        self._has_failed = False
        self._deliver(known)

    def _failed(self, error: SinkError) -> None:
        if not self._has_failed:
            log.warning("cc-backend cannot be asked for its clusters, which is tried again: %s", error)
        self._has_failed = True
        self._not_before = self._timing.clock() + self._timing.clusters_again
        self._requested.set()


class RunningListPoller:
    """Polls in a thread: at the start, every `interval` seconds, and when `poll_soon()` requests it.

    A destination that is away is polled until it answers. Any thread may call `poll_soon` and `ask_clusters`; the
    main thread starts and stops it; `deliver` is called in its own thread.
    """

    def __init__(  # noqa: PLR0913 - what it polls, for whom, and how often
        self,
        sink: AskableSink,
        reported_to: str,
        cluster: str,
        interval: float,
        deliver: Callable[[RunningRows], None],
        *,
        timing: Timing = TIMING,
        outages: Outages | None = None,
        on_clusters: Callable[[ClusterList], None] = lambda known: None,
    ) -> None:
        """`reported_to` is the name of the sink through which the destination gets jobs: its own, or NATS.

        `outages` is shared with all who ask the same destination. `on_clusters` is called, like `deliver`, with the
        clusters that it knows, each time after `ask_clusters`.
        """

        def hand_on(rows: Collection[RunningRow], asked: float) -> None:
            deliver(RunningRows(reported_to, rows, asked))

        self._connection = sink.connect(lambda: self._worker.progress())
        self._cluster = cluster
        self._interval = interval
        self._timing = timing
        self._deliver = hand_on
        self._requested = threading.Event()
        self._was_requested = False
        """Whether the poll that is due, or under way, was requested: then a second one follows soon."""
        self._next_request = 0.0
        self._failures = _Failures(timing, outages or Outages(timing.clock))
        self._clusters = _ClustersQuestion(lambda: self._connection.clusters(), on_clusters, timing)
        self._next_poll = 0.0
        """Like all times here by the clock of `timing`."""
        self._worker = Worker("running-list", self._turn, self._connection.close)

    @property
    def workers(self) -> list[Worker]:
        """Its thread."""
        return [self._worker]

    def start(self) -> None:
        """Begin with the first poll."""
        self._worker.start()

    def ask_to_stop(self) -> None:
        """Break off the poll under way; does not wait."""
        self._worker.stop()
        self._requested.set()
        self._connection.abort()

    def stop(self, time_limit: float) -> None:
        """End within `time_limit` seconds."""
        self.ask_to_stop()
        self._worker.join(time_limit)

    def change_interval(self, interval: float) -> None:
        """Poll every `interval` seconds from now on, and once immediately."""
        self._interval = interval
        self._requested.set()

    def poll_soon(self) -> None:
        """Request a poll, because the destination seems to have lost what it knew.

        A second one follows when runs that are young now can be judged.
        """
        now = self._timing.clock()
        if now >= self._next_request:
            self._next_request = now + SOONEST
            self._requested.set()

    def ask_clusters(self) -> None:
        """Ask the destination for its clusters within half a minute, or as soon as it answers again."""
        self._clusters.request()

    def _turn(self) -> None:
        if not self._failures.is_failing:
            self._clusters.attempt()
        wait = min(self._next_poll - self._timing.clock(), WAIT)
        if wait <= 0:
            self._poll()
        elif self._failures.is_failing:
            self._worker.wait(wait)  # a request does not shorten the rest of a destination that is away
        elif self._requested.wait(wait):
            self._next_poll = 0.0

    def _poll(self) -> None:
        self._was_requested = self._requested.is_set() or self._was_requested
        self._requested.clear()
        asked, began = time.time(), self._timing.clock()
        try:
            rows = PackedRows(self._connection.running_rows(self._cluster))
        except SinkError as error:
            wait = self._failures.failed(error, began)
            self._next_poll = self._timing.clock() + wait
            return
        self._failures.succeeded()
        wait = min(self._timing.second_poll_after, self._interval) if self._was_requested else self._interval
        self._next_poll = self._timing.clock() + wait
        self._was_requested = False
        self._deliver(rows, asked)
