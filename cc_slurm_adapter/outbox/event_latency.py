"""How long it takes from a hook event until the leading destination has accepted what follows from it."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.model import HookEvent
from cc_slurm_adapter.sinks.base import Kind

EXPIRY = 600.0
"""Seconds. An event that led to nothing for so long is forgotten: its job may be left out, or the destination away."""
MAX_EVENTS = 10_000
"""The most events that are remembered. With more, the oldest is forgotten."""


class _Event(NamedTuple):
    received: float
    is_settled: bool = False
    """Whether its message was delivered. Until it expires it hides events of the same kind from other nodes."""


class EventLatency:
    """The events that wait until their message is delivered. Used from every thread.

    Prolog and Epilog run on every node of a job, so of their events the first one counts. slurmctld's own hooks run
    once for each start and end, so each of their events counts.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._lock = threading.Lock()
        self._events: dict[tuple[int, bool], _Event] = {}
        """By job id, and whether it is an end; in the order in which they were recorded."""

    def announced(self, event: HookEvent) -> None:
        """Record an event."""
        key = event.job_id, event.is_end
        with self._lock:
            known = self._events.get(key)
            if known is not None and not event.comes_once and time.monotonic() - known.received < EXPIRY:
                return
            self._events.pop(key, None)
            if len(self._events) >= MAX_EVENTS:
                del self._events[next(iter(self._events))]
            self._events[key] = _Event(event.received)

    def delivered(self, job_id: int, kind: Kind) -> None:
        """Measure the time since the event of a start or stop that was delivered now, if there was one."""
        if kind not in (Kind.START, Kind.STOP):
            return
        key = job_id, kind is Kind.STOP
        with self._lock:
            event = self._events.get(key)
            if event is None or event.is_settled:
                return
            seconds = time.monotonic() - event.received
            self._events[key] = event._replace(is_settled=True)
        if seconds < EXPIRY:
            self._counters.observe_in_buckets("event_to_accepted", seconds, kind=kind.value)
