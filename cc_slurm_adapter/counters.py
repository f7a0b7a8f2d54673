"""Counters of what happened since the start, for log lines and, later, for status and metrics."""

from __future__ import annotations

import threading
from collections import Counter


class Status:
    """Counters by name; used from every thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter."""
        with self._lock:
            self._counts[name] += by

    def counts(self) -> dict[str, int]:
        """All counters as they stand."""
        with self._lock:
            return dict(self._counts)

    def __str__(self) -> str:
        return " ".join(f"{name}={count}" for name, count in sorted(self.counts().items())) or "nothing"
