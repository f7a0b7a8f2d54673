"""Counters of what happened since the start, for log lines and, later, for status and metrics."""

from __future__ import annotations

import threading
from collections import Counter

PRINTED_WITHOUT_ITS_NAME = ("sink", "cc_rest")
"""The label of the sink that nearly every site has. The log names only the other sink."""


class Counters:
    """Numbers by name and labels. Any thread may count and read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        """Add to a counter. A name has the same labels wherever it is counted, in the same order."""
        with self._lock:
            self._counts[name, tuple(labels.items())] += by

    def counts(self) -> dict[str, int]:
        """Return all counters by the names that the log uses."""
        with self._lock:
            return {_printed(name, labels): count for (name, labels), count in self._counts.items()}

    def __str__(self) -> str:
        return " ".join(f"{name}={count}" for name, count in sorted(self.counts().items())) or "nothing"


def _printed(name: str, labels: tuple[tuple[str, str], ...]) -> str:
    """Return the name with the values of its labels.

    Deliveries are counted most often, so they have short names: `start_delivered`, and `nats_start_delivered` for NATS.
    """
    values = "_".join(label[1] for label in labels if label != PRINTED_WITHOUT_ITS_NAME)
    if name == "deliveries":
        return values.removeprefix("cc_")
    return f"{name}_{values}" if values else name
