"""What happened since the start, in numbers, for log lines, status and metrics: counters, durations, histograms."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from typing import NamedTuple

PRINTED_WITHOUT_ITS_NAME = ("sink", "cc_rest")
"""The label of the sink that nearly every site has. The log names only the other sink."""
NOT_PRINTED = {"way", "missing", "why"}
"""Labels that only metrics have. The log has the sum of what differs in them."""
MOST_SERIES = 1000
"""The most counters with their labels, and as many durations and histograms. Labels are from closed sets, so there are
fewer; beyond it, nothing new is counted."""
BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of a histogram's buckets, in seconds. The last bucket, which has no bound, is not listed."""


class Label(NamedTuple):
    """A label of a counter."""

    name: str
    value: str


class Sample(NamedTuple):
    """A counter with its labels, and its value now."""

    name: str
    labels: tuple[Label, ...]
    value: int


class TimingSample(NamedTuple):
    """How often something was done, and how many seconds that took in all."""

    name: str
    labels: tuple[Label, ...]
    times: int
    seconds: float


class HistogramSample(NamedTuple):
    """How many durations there were in each of the BUCKETS and above them, and their sum in seconds."""

    name: str
    labels: tuple[Label, ...]
    buckets: tuple[int, ...]
    """Not cumulative. One more than there are BUCKETS."""
    seconds: float


_Key = tuple[str, tuple[tuple[str, str], ...]]


class Counters:
    """Numbers by name and labels. Any thread may count and read.

    A name has the same labels wherever it is counted, in the same order. The log has the counters only.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[_Key] = Counter()
        self._timings: dict[_Key, tuple[int, float]] = {}
        self._histograms: dict[_Key, tuple[list[int], float]] = {}

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        """Add to a counter."""
        key = name, tuple(labels.items())
        with self._lock:
            if key in self._counts or len(self._counts) < MOST_SERIES:
                self._counts[key] += by

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Add a duration to those of the same name and labels."""
        key = name, tuple(labels.items())
        with self._lock:
            if key in self._timings or len(self._timings) < MOST_SERIES:
                times, sum_ = self._timings.get(key, (0, 0.0))
                self._timings[key] = times + 1, sum_ + seconds

    def observe_in_buckets(self, name: str, seconds: float, **labels: str) -> None:
        """Add a duration to a histogram."""
        key = name, tuple(labels.items())
        with self._lock:
            if key in self._histograms or len(self._histograms) < MOST_SERIES:
                buckets, sum_ = self._histograms.get(key) or ([0] * (len(BUCKETS) + 1), 0.0)
                buckets[bisect_left(BUCKETS, seconds)] += 1
                self._histograms[key] = buckets, sum_ + seconds

    def counts(self) -> dict[str, int]:
        """Return all counters by the names that the log uses."""
        found: Counter[str] = Counter()
        with self._lock:
            for (name, labels), count in self._counts.items():
                found[_printed(name, labels)] += count
        return dict(found)

    def samples(self) -> tuple[Sample, ...]:
        """Return all counters with their labels, in the order of their names."""
        with self._lock:
            found = sorted(self._counts.items())
        return tuple(Sample(name, _labels(labels), count) for (name, labels), count in found)

    def timings(self) -> tuple[TimingSample, ...]:
        """Return all durations with their labels, in the order of their names."""
        with self._lock:
            found = sorted(self._timings.items())
        return tuple(TimingSample(name, _labels(labels), *sums) for (name, labels), sums in found)

    def histograms(self) -> tuple[HistogramSample, ...]:
        """Return all histograms with their labels, in the order of their names."""
        with self._lock:
            found = sorted((key, tuple(buckets), seconds) for key, (buckets, seconds) in self._histograms.items())
        return tuple(
            HistogramSample(name, _labels(labels), buckets, seconds) for (name, labels), buckets, seconds in found
        )

    def __str__(self) -> str:
        return " ".join(f"{name}={count}" for name, count in sorted(self.counts().items())) or "nothing"


def _labels(labels: tuple[tuple[str, str], ...]) -> tuple[Label, ...]:
    return tuple(Label(*label) for label in labels)


def _printed(name: str, labels: tuple[tuple[str, str], ...]) -> str:
    """Return the name with the values of its labels.

    Deliveries are counted most often, so they have short names: `start_delivered`, and `nats_start_delivered` for NATS.
    """
    shown = (label for label in labels if label != PRINTED_WITHOUT_ITS_NAME and label[0] not in NOT_PRINTED)
    values = "_".join(value for _, value in shown)
    if name == "deliveries":
        return values.removeprefix("cc_")
    return f"{name}_{values}" if values else name
