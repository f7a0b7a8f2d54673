"""Asks a destination now and then what it believes to be running, and hands the answer to the main loop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from cc_slurm_adapter.backoff import Backoff
from cc_slurm_adapter.errors import SinkError
from cc_slurm_adapter.sinks import RunningRow, Sink

log = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0


class Reconciler:
    """A thread: at the start, and every `interval` seconds. A destination that is away is asked until it answers."""

    def __init__(self, sink: Sink, cluster: str, interval: float, deliver: Callable[[list[RunningRow]], None]) -> None:
        self._connection = sink.connect()
        self._cluster = cluster
        self._interval = interval
        self._deliver = deliver
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="reconciler", daemon=True)

    def start(self) -> None:
        """Begin with the first question."""
        self._thread.start()

    def stop(self, time_limit: float) -> None:
        """End within `time_limit` seconds."""
        self._stopping.set()
        self._connection.abort()
        self._thread.join(time_limit)

    def _work(self) -> None:
        backoff = Backoff(FIRST_WAIT, LONGEST_WAIT)
        while not self._stopping.is_set():
            try:
                self._deliver(list(self._connection.running_rows(self._cluster)))
            except SinkError as error:
                log.info("the running jobs cannot be compared yet: %s", error)
                self._stopping.wait(backoff.failed())
            else:
                backoff.succeeded()
                self._stopping.wait(self._interval)
        self._connection.close()
