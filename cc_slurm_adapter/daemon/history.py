"""The last hour, a point a minute, for the charts of the status page. It is kept in memory only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Optional

from cc_slurm_adapter.counters import Sample
from cc_slurm_adapter.daemon.report import DestinationReport, StatusReport

MINUTES = 60
"""How many points are kept."""
MINUTE = 60.0
"""Seconds."""


class DestinationPoint(NamedTuple):
    """A destination in one minute."""

    sink: str
    lag: float
    """For how many seconds the oldest pending message was pending at the end of the minute; 0 if none was."""
    pending: int
    """Messages at the end of the minute."""
    delivered: int
    """Messages that it accepted in the minute."""


class Point(NamedTuple):
    """One minute."""

    destinations: tuple[DestinationPoint, ...]
    events: int
    """Hook events in the minute."""

    def of(self, sink: str) -> DestinationPoint | None:
        """Return what is known of a destination, by its name in the state file."""
        return next((each for each in self.destinations if each.sink == sink), None)


Points = tuple[Optional[Point], ...]
"""MINUTES entries, the oldest first: None for a minute of which nothing is known."""


class _Beginning(NamedTuple):
    """What was counted when a minute began."""

    minute: int
    delivered: dict[str, int]
    events: int = 0
    is_known: bool = True
    """False if nobody counted then. What happened in this minute cannot be said."""


class History:
    """Makes the points from reports. Used by one thread.

    Minutes are those of a clock that cannot be set, counted from the first report.
    """

    def __init__(self) -> None:
        self._first: float | None = None
        self._beginning = _Beginning(0, {})
        self._points: dict[int, Point] = {}
        """By the number of the minute; only the last MINUTES."""

    def add(self, report: StatusReport, now: float) -> None:
        """Note what a report says of the minute that has ended, if one has. `now` is time.monotonic().

        A minute without a report at its beginning and its end has no point.
        """
        delivered = delivered_by_sink(report.samples)
        if self._first is None:
            self._first, self._beginning = now, _Beginning(0, delivered, report.hooks.events)
        minute, before = self._minute(now), self._beginning
        if minute <= before.minute:
            return
        follows = minute == before.minute + 1
        if follows and before.is_known:
            self._points[before.minute] = _point(report, before, delivered)
        self._points = {known: point for known, point in self._points.items() if known >= minute - MINUTES}
        self._beginning = _Beginning(minute, delivered, report.hooks.events, is_known=follows)

    @property
    def events_a_minute(self) -> int:
        """Hook events in the last minute that is known; 0 if there is none."""
        return self._points[max(self._points)].events if self._points else 0

    def points(self, now: float) -> Points:
        """Return the last MINUTES full minutes before `now`, which is time.monotonic()."""
        minute = self._minute(now)
        return tuple(self._points.get(each) for each in range(minute - MINUTES, minute))

    def _minute(self, now: float) -> int:
        return 0 if self._first is None else int((now - self._first) // MINUTE)


def delivered_by_sink(samples: Iterable[Sample]) -> dict[str, int]:
    """Return how many messages each destination has accepted since the start, by its name in the state file."""
    sums: dict[str, int] = {}
    for sample in samples:
        labels = dict(sample.labels)
        if sample.name == "deliveries" and labels.get("result") == "delivered":
            sink = labels.get("sink", "")
            sums[sink] = sums.get(sink, 0) + sample.value
    return sums


def lag_of(destination: DestinationReport, now: float) -> float:
    """Return for how many seconds the oldest pending message is pending at a Unix time; 0 if none is.

    It is never negative, although the clock may have been set back.
    """
    oldest = destination.queue.oldest_pending
    return max(now - oldest, 0.0) if oldest else 0.0


def _point(report: StatusReport, before: _Beginning, after: dict[str, int]) -> Point:
    """A counter that is smaller than before has begun anew, so nothing can be said of its minute: it counts as 0."""
    return Point(
        tuple(
            DestinationPoint(
                name := each.sink.name,
                lag_of(each, report.time),
                each.queue.pending,
                max(after.get(name, 0) - before.delivered.get(name, 0), 0),
            )
            for each in report.destinations
        ),
        max(report.hooks.events - before.events, 0),
    )
