"""How long a request may take. The time is usually short, so that a recovered destination is noticed soon."""

from __future__ import annotations

import threading
from typing import NamedTuple

TIME_LIMIT = 10.0
"""Seconds until the response is complete."""
SLOW_TIME_LIMIT = 60.0
"""The longest timeout. All requests to a destination that has just responded slowly get it."""
SLOW = 3.0
"""Seconds after which a response counts as slow."""


class Timeout(NamedTuple):
    """The timeout of one request. A special request may have a longer one than others at the same time."""

    seconds: float
    is_special: bool


class AdaptiveTimeout:
    """The timeouts of a destination, shared by all its connections.

    One of the requests under way is special: after each of its timeouts the next special request may take twice as
    long. So a destination that is always slow still gets its time, and one that hangs is still tried often.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_slow = False
        self._consecutive = 0
        """Timeouts of special requests, in a row."""
        self._special_is_under_way = False

    def begin(self) -> Timeout:
        """Return the timeout of a request that is about to be sent. Pass it to `end` afterwards."""
        with self._lock:
            is_special, self._special_is_under_way = not self._special_is_under_way, True
            seconds = TIME_LIMIT * 2**self._consecutive if is_special else TIME_LIMIT
            return Timeout(SLOW_TIME_LIMIT if self._is_slow else min(seconds, SLOW_TIME_LIMIT), is_special)

    def responded(self, seconds: float) -> None:
        """Record that a response was complete after this many seconds."""
        with self._lock:
            self._is_slow = seconds > SLOW
            self._consecutive = 0

    def end(self, timeout: Timeout, *, timed_out: bool) -> None:
        """Record that the request is over, with or without a response."""
        with self._lock:
            if timeout.is_special:
                self._special_is_under_way = False
                self._consecutive = min(self._consecutive + timed_out, 10)
