"""The rows of one destination that are due: some are taken from the outbox at once, and sent soon after that."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Collection
from itertools import takewhile

from cc_slurm_adapter.log import Repeated
from cc_slurm_adapter.outbox.clock_step import ClockStep
from cc_slurm_adapter.outbox.deliveries import Deliveries
from cc_slurm_adapter.outbox.row_failures import RowFailures
from cc_slurm_adapter.outbox.sink_health import SHORTEST_WAIT
from cc_slurm_adapter.outbox.tasks import Rows
from cc_slurm_adapter.sinks.base import REMOVALS, Delivery, Sink

log = logging.getLogger(__name__)

BATCH = 32
"""Most rows taken at once for connections that send one after the other."""
AHEAD = 0.05
"""Seconds in which rows that are taken at once should be sent."""
STALE = 1.0
"""Seconds after which rows that were not sent are taken anew, as something else of their jobs may be due."""
GATHER = 0.05
"""Seconds between two tasks of a connection that takes many rows at once, so that there are many."""


class DueRows:
    """Rows that were taken, until they are popped to be sent.

    It is used under the sender's lock; only `is_gathering`, `has_more` and `answered` need none.
    """

    def __init__(self, sink: Sink, deliveries: Deliveries, failures: RowFailures) -> None:
        """`failures` says which rows may go together."""
        self._sink = sink
        self._deliveries = deliveries
        self._failures = failures
        self._taken: deque[Delivery] = deque()
        self._taken_at = 0.0
        self._unsent: list[int] = []
        """The numbers of rows that were taken, but are not sent for the first time yet."""
        self._seconds = math.inf
        """How long the last request took."""
        self._gather_until = 0.0
        self._clock = ClockStep()
        self._clock_steps = Repeated()

    @property
    def is_gathering(self) -> bool:
        """Tell whether rows are gathered now, so that many go together."""
        return time.monotonic() < self._gather_until

    @property
    def has_more(self) -> bool:
        """Tell whether rows were taken that are not popped yet."""
        return bool(self._taken)

    def are_there(self) -> bool:
        """Return whether any row is due now, a refused one that is tried again as well. Raises StateError."""
        return bool(self._taken or self._deliveries.due(self._sink.name, time.time(), 1))

    def answered(self, seconds: float) -> None:
        """Note how long a request took, infinitely if it failed: so many rows are taken as are sent soon."""
        self._seconds = seconds

    def drop(self) -> None:
        """Drop what was taken: everything waits, and what is due then is taken again."""
        self._unsent += [each.row_id for each in self._taken if not each.first_sent]
        self._taken.clear()

    def give_back(self) -> None:
        """Let no row count as sent that was dropped before it was sent. Raises StateError."""
        if self._unsent:
            self._deliveries.not_sent(self._unsent)
            self._unsent.clear()

    def next_rows(self, busy: Callable[[], Collection[tuple[str, int]]]) -> tuple[Rows | None, float | None]:
        """Pop rows to send now, or return the seconds until there may be some; None without any. Raises StateError.

        `busy` returns the jobs (cluster, job id) of which something is under way.
        """
        self.follow_clock()
        if self._taken and time.monotonic() - self._taken_at > STALE:
            self.drop()
        if not self._taken:
            wait = self._gather_until - time.monotonic()
            if wait > 0:
                return None, wait
            self._refill(busy())
        if self._taken:
            return Rows(self._pop()), None
        due = self._deliveries.next_due(self._sink.name, time.time())
        return None, None if due is None else max(due - time.time(), SHORTEST_WAIT)

    def retry_pending(self) -> None:
        """Let no pending row wait any longer."""
        self._deliveries.retry_pending(self._sink.name)

    def follow_clock(self) -> None:
        """Shift the times in the outbox when the clock was set, so that no row waits for that.

        They are Unix times, as they outlive this process.
        """
        step = self._clock.step()
        if step:
            if self._clock_steps.is_due():
                log.warning("the clock was set by %+.0f s%s", step, self._clock_steps.note)
            self._deliveries.shift_times(self._sink.name, step)
            self._clock.followed(step)

    def _pop(self) -> list[Delivery]:
        """Pop some that go together."""
        rows = [self._taken.popleft()]
        while self._taken and len(rows) < self._sink.batch_size:
            if not self._failures.may_go_together(rows[0].row_id, self._taken[0].row_id):
                break
            rows.append(self._taken.popleft())
        if 1 < self._sink.batch_size > len(rows):
            self._gather_until = time.monotonic() + GATHER
        return rows

    def _refill(self, busy: Collection[tuple[str, int]]) -> None:
        """Take rows that are due: of a job one row is under way at a time.

        A removal is taken alone. If it finds no row, it matters whether it was really sent before.
        """
        self.give_back()
        due = self._deliveries.due(self._sink.name, time.time(), self._at_once(), busy)
        while due and not self._taken:  # of all that were read, something else of their jobs may have become due
            some = list(takewhile(lambda each: each.kind not in REMOVALS, due)) or due[:1]
            due = due[len(some) :]
            self._taken.extend(self._deliveries.begin(some, time.time()))
        self._taken_at = time.monotonic()

    def _at_once(self) -> int:
        """Return how many rows are taken: those that are sent together, or soon as long as requests are quick."""
        if self._sink.batch_size > 1:
            return self._sink.batch_size
        return int(max(min(BATCH, AHEAD * self._sink.connections / max(self._seconds, 1e-6)), 1))
