"""Asks a destination now and then what it believes to be running, and hands the answer to the main loop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from cc_slurm_adapter.backoff import Backoff
from cc_slurm_adapter.errors import SinkError
from cc_slurm_adapter.log import Reminder
from cc_slurm_adapter.sinks import AskableSink, RunningRows

log = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
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
        self._connection = sink.connect()
        self._cluster = cluster
        self._interval = interval
        self._deliver = deliver
        self._stopping = False
        self._called = threading.Event()
        self._next_call = 0.0
        self._thread = threading.Thread(target=self._work, name="reconciler", daemon=True)

    def start(self) -> None:
        """Begin with the first question."""
        self._thread.start()

    def stop(self, time_limit: float) -> None:
        """End within `time_limit` seconds."""
        self._stopping = True
        self._called.set()
        self._connection.abort()
        self._thread.join(time_limit)

    def ask_now(self) -> None:
        """The destination seems to have lost what it knew: compare at once, and again when young runs can be judged."""
        now = time.monotonic()
        if now >= self._next_call:
            self._next_call = now + SOONEST
            self._called.set()

    def _work(self) -> None:
        backoff = Backoff(FIRST_WAIT, LONGEST_WAIT)
        reminder = Reminder()
        was_called = False
        while not self._stopping:
            asked = time.time()
            try:
                rows = list(self._connection.running_rows(self._cluster))
            except SinkError as error:
                if reminder.is_due():
                    log.info("the running jobs cannot be compared yet: %s", error)
                self._called.wait(backoff.failed())
                continue
            backoff.succeeded()
            reminder.over()
            self._deliver(RunningRows(self._sink, rows, asked))
            was_called = self._called.wait(min(AGAIN, self._interval) if was_called else self._interval)
            if not self._stopping:
                self._called.clear()
        self._connection.close()
