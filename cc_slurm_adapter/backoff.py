"""Waiting times that grow: exponential, with full jitter, so that many waiters do not come back together."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Seconds to wait after each failure in a row."""

    def __init__(self, first: float, longest: float, jitter: Callable[[], float] = random.random) -> None:
        self._first = first
        self._longest = longest
        self._jitter = jitter
        self.failures = 0

    def failed(self) -> float:
        """Count a failure; seconds until the next try: anything up to the step, at most `longest`."""
        step: float = min(self._first * 2 ** min(self.failures, 30), self._longest)
        self.failures += 1
        return step * self._jitter()

    def succeeded(self) -> None:
        """Start again from the first step."""
        self.failures = 0
