"""Counts the messages that wait, for whoever asks how the daemon is. Asking often costs little and never takes long."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from cc_slurm_adapter.errors import StateError
from cc_slurm_adapter.outbox import parking, queries
from cc_slurm_adapter.outbox.database import StateDatabase
from cc_slurm_adapter.outbox.report import Parked, QueueReport, StateReport
from cc_slurm_adapter.outbox.rerouting import USED_SINKS
from cc_slurm_adapter.outbox.text_limit import used_bytes

log = logging.getLogger(__name__)

LOCK_LIMIT = 0.2
"""Seconds to wait for others that use the state file. A disk that hangs may hold them for long."""
SHARE = 50
"""Counting takes at most one part in so many of the time: after a long count the next one comes later."""


class Queues(NamedTuple):
    """What waits, and the state file. `queues` has an entry for each sink that was ever used."""

    queues: dict[str, QueueReport]
    parked: tuple[Parked, ...]
    state: StateReport


class _Version(NamedTuple):
    """Tells whether anything has changed: so an idle daemon, which asks every few seconds, need not count many rows."""

    database: sqlite3.Connection
    """It is another one when the state moves to memory, or back to the file."""
    own_changes: int
    others_changes: int


class QueueWatch:
    """Counts what waits, and keeps the last result. Any thread may ask."""

    def __init__(self, state: StateDatabase, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._state = state
        self._clock = clock
        self._lock = threading.Lock()
        self._last = Queues({}, (), StateReport(state.path, True, 0, max_bytes, 0.0))
        self._next = 0.0
        self._counted: _Version | None = None
        """What was counted."""

    def report(self, *, is_last: bool = False) -> Queues:
        """Return what waits now, or what waited a moment ago. It is older while the state file cannot be read.

        `is_last` says that nobody asks after this: it is counted however short ago that was done.
        """
        if self._lock.acquire(timeout=LOCK_LIMIT):
            try:
                if is_last or self._clock() >= self._next:
                    self._count()
            finally:
                self._lock.release()
        return self._last._replace(state=self._last.state._replace(is_durable=self._state.is_durable))

    def _count(self) -> None:
        began = self._clock()
        try:
            with self._state.reading(LOCK_LIMIT) as database:
                version = _version(database)
                queues, parked = self._last[:2] if version == self._counted else count(database)
                state = self._last.state._replace(bytes=used_bytes(database), taken_at=time.time())
            self._last, self._counted = Queues(queues, parked, state), version
        except StateError:
            log.debug("the messages that wait cannot be counted", exc_info=True)
        ended = self._clock()
        self._next = ended + SHARE * (ended - began)


def _version(database: sqlite3.Connection) -> _Version:
    return _Version(database, database.total_changes, database.execute("PRAGMA data_version").fetchone()[0])


def count(database: sqlite3.Connection) -> tuple[dict[str, QueueReport], tuple[Parked, ...]]:
    """Return what waits for each sink that was ever used, and the refused messages by reason. Raises sqlite3.Error."""
    sinks = {sink: QueueReport(sink) for (sink,) in database.execute(USED_SINKS)}
    for sink, number, oldest in database.execute(queries.COUNT_PENDING):
        sinks[sink] = sinks.get(sink, QueueReport(sink))._replace(pending=number, oldest_pending=float(oldest or 0))
    for sink, number in database.execute(queries.COUNT_CONFLICTS):
        sinks[sink] = sinks.get(sink, QueueReport(sink))._replace(conflicts=number)
    parked = tuple(parking.parked_by_reason(database))
    for each in parked:
        known = sinks.get(each.sink, QueueReport(each.sink))
        sinks[each.sink] = known._replace(parked=known.parked + each.messages)
    return sinks, parked
