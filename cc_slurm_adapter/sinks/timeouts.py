"""How long an answer may take. Mostly not long, so that it is soon noticed when a destination that hung is back."""

from __future__ import annotations

import threading
from typing import NamedTuple

TIME_LIMIT = 10.0
"""Seconds for a whole answer."""
SLOW_TIME_LIMIT = 60.0
"""The longest, and what all get from a destination that has just answered slowly."""
SLOW = 3.0


class Timeout(NamedTuple):
    """What one request may take. `is_special`: it may take longer than others at the same time."""

    seconds: float
    is_special: bool


class AdaptiveTimeout:
    """Shared by all connections to a destination.

    Of the requests under way one is special: after each of its time-outs the next special one may take twice as long.
    So a destination that is always slow is waited for, and one that hangs is still asked often.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_slow = False
        self._time_outs = 0
        """Of special requests in a row."""
        self._special_is_out = False

    def begin(self) -> Timeout:
        """For a request that is about to be sent; `end` gives it back."""
        with self._lock:
            is_special, self._special_is_out = not self._special_is_out, True
            seconds = TIME_LIMIT * 2**self._time_outs if is_special else TIME_LIMIT
            return Timeout(SLOW_TIME_LIMIT if self._is_slow else min(seconds, SLOW_TIME_LIMIT), is_special)

    def answered(self, seconds: float) -> None:
        """An answer was whole after so many seconds."""
        with self._lock:
            self._is_slow = seconds > SLOW
            self._time_outs = 0

    def end(self, patience: Timeout, *, timed_out: bool) -> None:
        """The request is over."""
        with self._lock:
            if patience.is_special:
                self._special_is_out = False
                self._time_outs = min(self._time_outs + timed_out, 10)
