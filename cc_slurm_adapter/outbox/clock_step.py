"""Whether the clock of this host was set, which moves all Unix times but not what passes between two of them."""

from __future__ import annotations

import time

CLOCK_STEP = 5.0
"""Seconds by which the clock must differ to have been set; less is only corrected."""
LARGE_STEP = 3600.0
"""Seconds by which the clock must be set forward to make ages wrong by much."""
EARLIEST, LATEST = 1_767_225_600, 3_029_529_600
"""2026-01-01 and 2066-01-01 as Unix times. This program is younger, and a clock without a battery shows 1970, the date
of its firmware, or anything."""


def is_plausible(now: float) -> bool:
    """Whether a clock may be right that shows this Unix time."""
    return EARLIEST <= now < LATEST


class ClockStep:
    """Compares the clock with one that nobody sets and that goes on in a suspend."""

    def __init__(self) -> None:
        self._offset = _clock_offset()

    def step(self) -> float:
        """Seconds by which it was set since `followed` was called last, or since the beginning; 0 when it was not."""
        step = _clock_offset() - self._offset
        return step if abs(step) > CLOCK_STEP else 0.0

    def followed(self, step: float) -> None:
        """Note that all that depends on the clock has been moved by such a step."""
        self._offset += step


class Ages:
    """Whether ages by Unix time are right: what was noted before the clock was set forward by much seems too old.

    Not again before all of that has reached `longest` seconds, the age that counts most, or a new start.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._clock = ClockStep()
        self._wrong_until = 0.0

    def are_right(self) -> bool:
        """Whether they are now."""
        step = self._clock.step()
        self._clock.followed(step)
        if step > LARGE_STEP:
            self._wrong_until = time.monotonic() + self._longest
        return time.monotonic() >= self._wrong_until


def _clock_offset() -> float:
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
