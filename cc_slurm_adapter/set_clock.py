"""Whether the clock of this host was set, which moves all Unix times but not what passes between two of them."""

from __future__ import annotations

import time

CLOCK_STEP = 5.0
"""Seconds by which the clock must differ to have been set; less is only corrected."""


class SetClock:
    """Compares the clock with one that nobody sets and that goes on in a suspend."""

    def __init__(self) -> None:
        self._offset = _clock_offset()

    def step(self) -> float:
        """Seconds by which it was set since `took` was called last, or since the beginning; 0 when it was not."""
        step = _clock_offset() - self._offset
        return step if abs(step) > CLOCK_STEP else 0.0

    def took(self, step: float) -> None:
        """All that depends on the clock has been moved by such a step."""
        self._offset += step


def _clock_offset() -> float:
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
