"""A clock that a test sets."""

from __future__ import annotations


class Clock:
    """Shows the same time until a test sets `now`."""

    now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now
