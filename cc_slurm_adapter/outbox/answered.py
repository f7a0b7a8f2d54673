"""Messages that a destination has, whose rows are still to be settled: many together, and soon.

A transaction for each answer would take longer than a request to a quick destination. What a killed process had not
settled yet is sent again, and the destination recognizes it. So there are never many, none waits for long, and none
while there is nothing else to send.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from cc_slurm_adapter.sinks.base import Answer, Delivery

MOST, MOST_BYTES = 24, 128 * 1024
"""So many answers, or answers to so many bytes, are settled at once."""
MOST_UNSETTLED = 2 * MOST
"""With so many that are not settled, those that are being settled now included, who brings another one waits for that.
So a killed process has at most this many to send again, and one or two for each connection."""
LONGEST = 0.02
"""Seconds after which an answer is settled in any case."""

Answers = Sequence[tuple[Delivery, Answer]]


class Answered:
    """Used by all threads that send to one destination."""

    def __init__(self, settle: Callable[[Answers], None]) -> None:
        """`settle` settles some in one transaction. Raises StateError; then they stay pending, and are sent again."""
        self._settle = settle
        self._lock = threading.Lock()
        self._waiting: list[tuple[Delivery, Answer]] = []
        self._bytes = 0
        self._jobs: set[tuple[str, int]] = set()
        """Their jobs, also those of answers that are being settled now."""
        self.are_there = threading.Event()
        """Set while any wait, and from `end_waits` on."""
        self._ends = False

    @property
    def jobs(self) -> set[tuple[str, int]]:
        """Return the jobs (cluster, job id) whose rows are not settled: nothing else of them may be sent."""
        with self._lock:
            return set(self._jobs)

    def add(self, answers: Iterable[tuple[Delivery, Answer]]) -> bool:
        """Add messages that the destination has. Return whether there are so many now that they must be settled."""
        with self._lock:
            for delivery, answer in answers:
                self._waiting.append((delivery, answer))
                self._jobs.add(delivery.key[:2])
                self._bytes += len(delivery.payload)
            if not self.are_there.is_set():
                self.are_there.set()
            is_much = len(self._waiting) >= MOST or self._bytes >= MOST_BYTES
            return is_much or len(self._jobs) >= MOST_UNSETTLED

    def end_waits(self) -> None:
        """Let nobody wait for answers any longer, because the daemon stops."""
        with self._lock:
            self._ends = True
            self.are_there.set()

    def settle(self) -> bool:
        """Settle all that wait. Return whether there were any. Raises StateError."""
        with self._lock:
            some, self._waiting, self._bytes = self._waiting, [], 0
            if not self._ends:
                self.are_there.clear()
        if not some:
            return False
        try:
            self._settle(some)
        finally:
            with self._lock:
                self._jobs.difference_update(delivery.key[:2] for delivery, _ in some)
        return True
