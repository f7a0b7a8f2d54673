"""Counts which rows a destination did not accept and how often, and how many other rows it refuses meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

MAX_TRIES, MAX_TRIES_AMID_OTHERS = 5, 20
"""How many refusals park a row, and how many broken connections make it count as too large. The second number is used
while more than a fifth of the last answers to other rows are refusals, or are missing because a connection broke."""
RECENT = 100
"""How many of the last answers count for that fifth."""


@dataclass
class RowFailure:
    """A row that failed: how many successes there were before it was first sent, and how often it failed."""

    successes_before: int
    times: int = 0
    breaks: int = 0
    """How often its connection was broken off, counted only if other rows had succeeded since the last time."""
    successes_then: int = 0
    """How many successes there were at the last counted break."""

    def broke_off(self, successes: int) -> int:
        """Record that its connection was broken off, after this many successes. Return how often that happened.

        Breaks between which nothing succeeded count once.
        """
        if successes > max(self.successes_then, self.successes_before):
            self.breaks, self.successes_then = self.breaks + 1, successes
        return self.breaks


class RowFailures:
    """The failures of the rows of one destination. Rows are named by their numbers in the outbox."""

    def __init__(self) -> None:
        self._rows: dict[int, RowFailure] = {}
        self._suspects: set[int] = set()
        """Rows that were sent together when something failed."""
        self._recent: deque[tuple[int, bool]] = deque(maxlen=RECENT)
        """Rows that were refused (True) or settled by the last answers."""

    def of(self, row_id: int, successes: int) -> RowFailure:
        """Return the failures of a row, or a new record. `successes` is how many there were before it was sent."""
        return self._rows.setdefault(row_id, RowFailure(successes))

    def was_refused(self, row_id: int) -> None:
        """Record that the row itself was refused, or that its connection was broken off."""
        self._recent.append((row_id, True))

    def settled(self, row_id: int) -> None:
        """Record that this row got an answer other than a failure."""
        self._recent.append((row_id, False))
        self.forget(row_id)

    def suspect(self, row_ids: Iterable[int]) -> None:
        """Let each of these rows be sent alone: they failed when they were sent together, and one may be the cause."""
        self._suspects.update(row_ids)

    def may_go_together(self, row_id: int, other: int) -> bool:
        """Return whether two rows may be sent together."""
        return not self._suspects & {row_id, other}

    def forget(self, row_id: int) -> None:
        """Forget a row that is not tried again for now."""
        self._rows.pop(row_id, None)
        self._suspects.discard(row_id)

    def forget_all(self) -> None:
        """Forget all failures: the destination is back."""
        self._rows.clear()

    def tries_of(self, row_id: int) -> int:
        """Return how often a row is tried before it is parked.

        If many rows are refused now and accepted later, a few refusals do not show that one row is at fault.
        """
        others = [refused for other, refused in list(self._recent) if other != row_id]
        return MAX_TRIES_AMID_OTHERS if 5 * sum(others) > len(others) else MAX_TRIES
