"""Polls a destination for the jobs that it believes to be running, and hands each list to the main loop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from cc_slurm_adapter.errors import SinkError
from cc_slurm_adapter.log import Reminder
from cc_slurm_adapter.sinks.base import AskableSink, RunningRows
from cc_slurm_adapter.system.backoff import Backoff
from cc_slurm_adapter.system.threads import WAIT, Worker

log = logging.getLogger(__name__)

SOONEST = 60.0
"""Seconds between two polls that were requested, at least: every stop of an unknown run requests one."""


class Timing(NamedTuple):
    """How long the poller waits, in seconds."""

    first_wait: float = 1.0
    """Between two tries while the destination is away."""
    longest_wait: float = 60.0
    """The most of that: the wait doubles with every try."""
    long_failure: float = 60.0
    """After failures for so long somebody should look; whoever sends logs that a destination is away."""
    second_poll_after: float = 360.0
    """From a requested poll to the next: runs that were too young to be judged by the first are old enough then."""


TIMING = Timing()


class _Failures:
    """Failures of the polls in a row: when to try again, and what is logged."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._backoff = Backoff(timing.first_wait, timing.longest_wait)
        self._since = 0.0
        self._reminder = Reminder()

    @property
    def is_failing(self) -> bool:
        """Tell whether the last poll failed."""
        return self._backoff.failures > 0

    def failed(self, error: SinkError, began: float) -> float:
        """Log a poll that failed; `began` is its time.monotonic(). Returns the seconds until the next try."""
        if not self.is_failing:
            self._since = began
        is_long = began - self._since >= self._timing.long_failure
        if self._reminder.is_due("long" if is_long else ""):
            level = logging.WARNING if is_long else logging.INFO
            log.log(level, "the running jobs cannot be compared yet: %s", error)
        return self._backoff.failed()

    def succeeded(self) -> None:
        """Forget the failures."""
        self._backoff.succeeded()
        self._reminder.over()


class RunningListPoller:
    """Polls in a thread: at the start, every `interval` seconds, and when `poll_soon()` requests it.

    A destination that is away is polled until it answers. Any thread may call `poll_soon`; the main thread starts and
    stops it; `deliver` is called in its own thread.
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
    ) -> None:
        """`reported_to` is the name of the sink through which the destination gets jobs: its own, or NATS."""
        self._sink = reported_to
        self._connection = sink.connect(lambda: self._worker.progress())
        self._cluster = cluster
        self._interval = interval
        self._timing = timing
        self._deliver = deliver
        self._requested = threading.Event()
        self._was_requested = False
        """Whether the poll that is due, or under way, was requested: then a second one follows soon."""
        self._next_request = 0.0
        self._failures = _Failures(timing)
        self._next_poll = 0.0
        """Like all times here by time.monotonic()."""
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

    def poll_soon(self) -> None:
        """Request a poll, because the destination seems to have lost what it knew.

        A second one follows when runs that are young now can be judged.
        """
        now = time.monotonic()
        if now >= self._next_request:
            self._next_request = now + SOONEST
            self._requested.set()

    def _turn(self) -> None:
        wait = min(self._next_poll - time.monotonic(), WAIT)
        if wait <= 0:
            self._poll()
        elif self._failures.is_failing:
            self._worker.wait(wait)  # a request does not shorten the rest of a destination that is away
        elif self._requested.wait(wait):
            self._next_poll = 0.0

    def _poll(self) -> None:
        self._was_requested = self._requested.is_set() or self._was_requested
        self._requested.clear()
        asked, began = time.time(), time.monotonic()
        try:
            rows = list(self._connection.running_rows(self._cluster))
        except SinkError as error:
            wait = self._failures.failed(error, began)
            self._next_poll = time.monotonic() + wait
            return
        self._failures.succeeded()
        wait = min(self._timing.second_poll_after, self._interval) if self._was_requested else self._interval
        self._next_poll = time.monotonic() + wait
        self._was_requested = False
        self._deliver(RunningRows(self._sink, rows, asked))
