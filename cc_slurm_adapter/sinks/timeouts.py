"""How long a request may take. The time is usually short, so that a recovered destination is noticed soon."""

from __future__ import annotations

import threading
from typing import NamedTuple


class Timing(NamedTuple):
    """How long requests may take, in seconds."""

    time_limit: float = 10.0
    """Until the response is complete."""
    slow_time_limit: float = 60.0
    """The longest timeout. All requests to a destination that has just responded slowly get it."""
    slow: float = 3.0
    """After that a response counts as slow."""


TIMING = Timing()


class Timeout(NamedTuple):
    """The timeout of one request. A special request may have a longer one than others at the same time."""

    seconds: float
    is_special: bool


class AdaptiveTimeout:
    """The timeouts of a destination, shared by all its connections.

    One of the requests under way is special: after each of its timeouts the next special request may take twice as
    long. So a destination that is always slow still gets its time, and one that hangs is still tried often.
    """

    def __init__(self, *, timing: Timing = TIMING) -> None:
        self.timing = timing
        self._lock = threading.Lock()
        self._is_slow = False
        self._consecutive = 0
        """Timeouts of special requests, in a row."""
        self._special_is_under_way = False

    def begin(self) -> Timeout:
        """Return the timeout of a request that is about to be sent. Pass it to `end` afterwards."""
        with self._lock:
            is_special, self._special_is_under_way = not self._special_is_under_way, True
            longest = self.timing.slow_time_limit
            seconds = self.timing.time_limit * (2**self._consecutive if is_special else 1)
            return Timeout(longest if self._is_slow else min(seconds, longest), is_special)

    def responded(self, seconds: float) -> None:
        """Record that a response was complete after this many seconds."""
        if seconds <= self.timing.slow and not (self._is_slow or self._consecutive):
            return  # as nearly all are
        with self._lock:
            self._is_slow = seconds > self.timing.slow
            self._consecutive = 0

    def end(self, timeout: Timeout, *, timed_out: bool) -> None:
        """Record that the request is over, with or without a response."""
        if timeout.is_special:
            with self._lock:
                self._special_is_under_way = False
                self._consecutive = min(self._consecutive + timed_out, 10)
