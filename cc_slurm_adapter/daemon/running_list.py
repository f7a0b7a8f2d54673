"""Asks a destination now and then what it believes to be running, and hands the answer to the main loop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from cc_slurm_adapter.errors import SinkError
from cc_slurm_adapter.log import Reminder
from cc_slurm_adapter.sinks.base import AskableSink, RunningRows
from cc_slurm_adapter.system.backoff import Backoff
from cc_slurm_adapter.system.threads import WAIT, Worker

log = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
LONG_TROUBLE = 60.0
"""Seconds of failures after which somebody should look; whoever sends says of a destination that it is away."""
SOONEST = 60.0
"""Seconds between two comparisons that were asked for, at least."""
AGAIN = 360.0
"""Seconds until the next one after that: what was too young for the first is old enough then."""


class Reconciler:
    """A thread: at the start, every `interval` seconds, and when `ask_now()` says so.

    A destination that is away is asked until it answers.
    """

    def __init__(
        self,
        sink: AskableSink,
        reported_to: str,
        cluster: str,
        interval: float,
        deliver: Callable[[RunningRows], None],
    ) -> None:
        """`reported_to` is the name of the sink through which it gets jobs: itself, or NATS."""
        self._sink = reported_to
        self._connection = sink.connect(lambda: self._worker.progress())
        self._cluster = cluster
        self._interval = interval
        self._deliver = deliver
        self._called = threading.Event()
        self._was_called = False
        self._next_call = 0.0
        self._backoff = Backoff(FIRST_WAIT, LONGEST_WAIT)
        self._failing_since = 0.0
        self._reminder = Reminder()
        self._ask_at = 0.0
        """time.monotonic() of the next question."""
        self._worker = Worker("reconciler", self._turn, self._connection.close)

    @property
    def workers(self) -> list[Worker]:
        """Its thread."""
        return [self._worker]

    def start(self) -> None:
        """Begin with the first question."""
        self._worker.start()

    def ask_to_stop(self) -> None:
        """Break off what is under way; does not wait."""
        self._worker.stop()
        self._called.set()
        self._connection.abort()

    def stop(self, time_limit: float) -> None:
        """End within `time_limit` seconds."""
        self.ask_to_stop()
        self._worker.join(time_limit)

    def ask_now(self) -> None:
        """The destination seems to have lost what it knew: compare at once, and again when young runs can be judged."""
        now = time.monotonic()
        if now >= self._next_call:
            self._next_call = now + SOONEST
            self._called.set()

    def _turn(self) -> None:
        wait = min(self._ask_at - time.monotonic(), WAIT)
        if wait <= 0:
            self._ask()
        elif self._backoff.failures:
            self._worker.wait(wait)  # whoever calls does not shorten the rest of a destination that is away
        elif self._called.wait(wait):
            self._ask_at = 0.0

    def _ask(self) -> None:
        self._was_called = self._called.is_set() or self._was_called
        self._called.clear()
        asked, asked_at = time.time(), time.monotonic()
        try:
            rows = list(self._connection.running_rows(self._cluster))
        except SinkError as error:
            self._tell_failure(error, asked_at)
            self._ask_at = time.monotonic() + self._backoff.failed()
            return
        self._backoff.succeeded()
        self._reminder.over()
        self._ask_at = time.monotonic() + (min(AGAIN, self._interval) if self._was_called else self._interval)
        self._was_called = False
        self._deliver(RunningRows(self._sink, rows, asked))

    def _tell_failure(self, error: SinkError, asked_at: float) -> None:
        if not self._backoff.failures:
            self._failing_since = asked_at
        is_long = asked_at - self._failing_since >= LONG_TROUBLE
        if self._reminder.is_due("long" if is_long else ""):
            level = logging.WARNING if is_long else logging.INFO
            log.log(level, "the running jobs cannot be compared yet: %s", error)
