"""Which rows a destination did not accept, how often, and how many of the others it refuses meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

MAX_TRIES, MAX_TRIES_AMID_OTHERS = 5, 20
"""Refusals until a row is parked, and connections broken off until it counts as too large; the second number while more
than a fifth of the answers to other rows are refusals, or did not come because of that."""
RECENT = 100
"""Answers that count for that."""


@dataclass
class RowFailure:
    """A row that failed: how many successes there had been when it was sent first, and how often it failed."""

    successes_before: int
    times: int = 0
    breaks: int = 0
    """How often its connection was broken off, and others had succeeded since the time before."""
    successes_then: int = 0
    """The successes there had been then."""

    def broke_off(self, successes: int) -> int:
        """Note that its connection was broken off, after so many successes. Returns how often it was.

        Those between which nothing succeeded count once.
        """
        if successes > max(self.successes_then, self.successes_before):
            self.breaks, self.successes_then = self.breaks + 1, successes
        return self.breaks


class RowFailures:
    """Of one destination. Rows are named by their numbers in the outbox."""

    def __init__(self) -> None:
        self._rows: dict[int, RowFailure] = {}
        self._suspects: set[int] = set()
        """Rows that were sent together when something failed."""
        self._recent: deque[tuple[int, bool]] = deque(maxlen=RECENT)
        """Rows that were refused (True) or settled by the last answers."""

    def of(self, row_id: int, successes: int) -> RowFailure:
        """Return the failures of a row, which begin now if it had none: `successes` are those before it was sent."""
        return self._rows.setdefault(row_id, RowFailure(successes))

    def was_refused(self, row_id: int) -> None:
        """Note that the row itself was refused, or its connection broken off."""
        self._recent.append((row_id, True))

    def settled(self, row_id: int) -> None:
        """Note that the answer to a row was no failure."""
        self._recent.append((row_id, False))
        self.forget(row_id)

    def suspect(self, row_ids: Iterable[int]) -> None:
        """Have each sent alone of rows that were sent together and failed: one of them may be the cause."""
        self._suspects.update(row_ids)

    def may_go_together(self, row_id: int, other: int) -> bool:
        """Whether two rows may be sent together."""
        return not self._suspects & {row_id, other}

    def forget(self, row_id: int) -> None:
        """Forget a row that is not tried any more for now."""
        self._rows.pop(row_id, None)
        self._suspects.discard(row_id)

    def forget_all(self) -> None:
        """Forget all failures: the destination is back."""
        self._rows.clear()

    def tries_of(self, row_id: int) -> int:
        """Return how many tries a row has.

        Where many rows are refused now and accepted later, a few refusals are no evidence against one of them.
        """
        others = [refused for other, refused in list(self._recent) if other != row_id]
        return MAX_TRIES_AMID_OTHERS if 5 * sum(others) > len(others) else MAX_TRIES
