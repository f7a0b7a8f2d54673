"""Detects that the clock of this host was set, which moves all Unix times but not the time that really passes."""

from __future__ import annotations

import time

CLOCK_STEP = 5.0
"""The clock counts as set if it differs by more than this many seconds; less is only a correction."""
LARGE_STEP = 3600.0
"""Ages are very wrong if the clock was set forward by more than this many seconds."""
EARLIEST, LATEST = 1_767_225_600, 3_029_529_600
"""2026-01-01 and 2066-01-01 as Unix times. This program did not exist before, and a clock without a battery shows 1970,
the date of its firmware, or any other time."""


def is_plausible(now: float) -> bool:
    """Return whether a clock that shows this Unix time may be right."""
    return EARLIEST <= now < LATEST


class ClockStep:
    """Compares the clock with another one that cannot be set, and that also runs during a suspend."""

    def __init__(self) -> None:
        self._offset = _clock_offset()

    def step(self) -> float:
        """Return by how many seconds it was set since the last `followed`, or since the beginning; 0 if it was not."""
        step = _clock_offset() - self._offset
        return step if abs(step) > CLOCK_STEP else 0.0

    def followed(self, step: float) -> None:
        """Record that everything that depends on the clock has been moved by this step."""
        self._offset += step


class Ages:
    """Tells whether ages that are computed from Unix times are right.

    After the clock was set forward by much, everything that was stored before seems too old. Ages are right again
    after `longest` seconds, the longest age that counts, or after a restart.
    """

    def __init__(self, longest: float) -> None:
        self.longest = longest
        self._clock = ClockStep()
        self._wrong_until = 0.0

    def are_right(self) -> bool:
        """Return whether they are right now."""
        step = self._clock.step()
        self._clock.followed(step)
        if step > LARGE_STEP:
            self._wrong_until = time.monotonic() + self.longest
        return time.monotonic() >= self._wrong_until


def _clock_offset() -> float:
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
